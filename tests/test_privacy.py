"""Secrets and places on the machine stay out of what a run writes."""

import json

import pytest

from fer_utils.errors import redact


@pytest.fixture
def secrets(monkeypatch, tmp_path):
    """Plant a secret in every place that is known to hold one; return them all."""
    values = {
        "KAGGLE_USERNAME": "ann.example",
        "KAGGLE_KEY": "0123456789abcdef",
        "KAGGLE_API_TOKEN": "KGAT_planted",
        "AWS_SECRET_ACCESS_KEY": "aws/planted+secret",
        "SOME_PASSWORD": "correct horse",
        "GITHUB_TOKEN": "ghp_planted",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("https_proxy", "http://proxyuser:p%40ssw0rd@proxy.example:3128")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    (tmp_path / "kaggle.json").write_text(json.dumps({"username": "file.user", "key": "file-key-planted"}))
    (tmp_path / "access_token").write_text("token-of-the-file\n")
    return [
        *values.values(),
        "proxyuser",
        "p%40ssw0rd",
        "p@ssw0rd",
        "file.user",
        "file-key-planted",
        "token-of-the-file",
    ]


def test_known_secrets_are_struck_out(secrets):
    text = redact(" | ".join(f"before {value} after" for value in secrets))
    assert text.count("before *** after") == len(secrets) == 12


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Authorization: Basic YW5uOnBsYW50ZWQ=", "***"),
        ("{'Authorization': 'Bearer unknown-value.x'}", "{'***'}"),
        ("send: b'GET / HTTP/1.1\\r\\nauthorization: unknown-value\\r\\n'", "send: b'GET / HTTP/1.1\\r\\n***'"),
        ("Tunnel to http://ann:pl@nted@proxy:3128/ failed", "Tunnel to http://***@proxy:3128/ failed"),
        (
            "403 for url: https://s.example/a.zip?X-Goog-Signature=ab&x=1 (x)",
            "403 for url: https://s.example/a.zip?*** (x)",
        ),
        ("the basic network, token by token, of author Ann", "the basic network, token by token, of author Ann"),
        (
            "https://www.kaggle.com/datasets/msambare/fer2013: 404",
            "https://www.kaggle.com/datasets/msambare/fer2013: 404",
        ),
    ],
)
def test_what_looks_like_a_secret_is_struck_out(said, kept):
    assert redact(said) == kept
