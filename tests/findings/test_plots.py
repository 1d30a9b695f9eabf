"""The figures' data against their sources, and that they draw for one model and for many."""

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from planted import changed, plant_model, plant_run, planted_history, planted_predictions, planted_record, read_model
from sklearn import metrics as sk

from fer_utils.constants import CLASSES
from fer_utils.findings import figures, model_figures, plots, statistics
from fer_utils.findings.results import read_run

MODELS = ("traditional_cnn", "resnet50", "vgg16", "mobilenet_v3", "my_own_model")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(plant_run(tmp_path_factory.mktemp("run"), models=MODELS, seeds=(0, 1)))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One model, one epoch, few images, a class missing."""
    table = planted_predictions(80)
    table = table[table["label"] != 1]
    folder = tmp_path_factory.mktemp("smoke")
    return read_model(plant_model(folder, "resnet50", 0, table, planted_history(1), planted_record("resnet50")))


def test_curves_draw_every_epoch_of_every_seed(run):
    figure, data = plots.curves(run.models, ["precision", "macro_precision"])
    assert len(figure.axes) == 2 * len(MODELS)
    rows = data.query("model == 'vgg16' and seed == 1 and metric == 'precision' and part == 'validation'")
    assert list(rows["value"]) == list(run.by_name("vgg16")[1].history["val_precision"])
    assert len(data) == len(MODELS) * 2 * 2 * 2 * len(run.models[0].history)
    # Training and validation of two seeds in each panel, the training of the first seed thick and solid.
    assert all(len(ax.get_lines()) == 4 for ax in figure.axes)
    assert sorted(line.get_linewidth() for line in figure.axes[0].get_lines()) == [0.7, 0.7, 1.8, 1.8]
    assert sorted(line.is_dashed() for line in figure.axes[0].get_lines()) == [False, False, True, True]


def test_figures_of_several_seeds_can_be_saved_and_stacked(run):
    table = statistics.headline(run.first_seeds, "test", n_resamples=5).query("metric == 'accuracy'")
    others = pd.DataFrame({"model": ["vgg16"], "part": ["test"], "value": [0.5]})
    for figure, _ in (plots.curves(run.by_name("vgg16") + run.by_name("resnet50"), ["accuracy"]),
                      plots.accuracy_bars(table, {}, others)):  # fmt: skip
        assert all(figures.render(figure))
        assert figures.stacked(figure)


def test_panels_of_a_block_share_their_axes(run):
    high = run.first_seeds[-1].history.assign(loss=9.0)
    *others, last = run.first_seeds
    figure, _ = plots.curves([*others, changed(last, history=high)], ["loss"])
    assert figure.axes[0].get_ylim()[0] == 0 and figure.axes[0].get_ylim()[1] > 9
    assert len({ax.get_ylim() for ax in figure.axes}) == len({ax.get_xlim() for ax in figure.axes}) == 1
    assert [ax.get_ylabel() != "" for ax in figure.axes] == [True, False, False, False, True]
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "Epoch", "Epoch", "Epoch", "Epoch"]


def test_curve_that_the_thesis_is_judged_on_is_drawn(run):
    """Under the sound protocol validation is PublicTest alone; the thesis validates on all test images."""
    history = run.first_seeds[0].history
    history = history.assign(test_accuracy=history["val_accuracy"] - 0.1)
    data = model_figures.tidy_curves(history, ["accuracy", "loss"])
    assert set(data.loc[data["metric"] == "loss", "part"]) == {"training", "validation"}
    assert list(data.loc[data["part"] == "test", "value"]) == list(history["test_accuracy"])


def test_one_epoch_shows_markers(smoke):
    figure, data = plots.curves([smoke], ["accuracy"])
    assert all(line.get_marker() not in ("None", None, "") for line in figure.axes[0].get_lines())
    assert len(data) == 2


def test_accuracy_bars_mark_the_thesis_and_further_seeds(run):
    table = statistics.headline(run.first_seeds, "test", n_resamples=50).query("metric == 'accuracy'")
    others = pd.DataFrame({"model": ["vgg16"], "part": ["test"], "value": [0.5]})
    figure, data = plots.accuracy_bars(table, {"resnet50": 0.67, "not_run": 0.9}, others)
    assert data.set_index("model")["thesis"].dropna().to_dict() == {"resnet50": 0.67}
    (ax,) = figure.axes
    assert [patch.get_height() for patch in ax.patches] == pytest.approx(list(table["value"]))
    assert [text.get_text() for text in ax.texts] == [f"{value:.3f}" for value in table["value"]]
    assert "thesis, ResNet-50: 0.67" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert [list(line.get_ydata()) for line in ax.get_lines() if line.get_marker() == "o"] == [[], [], [0.5], [], []]


def test_bars_of_models_stand_side_by_side_in_each_class(run):
    table = pd.concat(
        statistics.class_intervals(*result.select("test"), n_resamples=20).assign(
            model=result.model, label=result.label
        )
        for result in run.first_seeds
    )
    figure, data = plots.class_scores(table)
    y_true, y_proba = run.by_name("vgg16")[0].select("test")
    expected = sk.f1_score(y_true, y_proba.argmax(axis=1), average=None)
    assert list(data.loc[data["model"] == "vgg16", "value"]) == pytest.approx(list(expected))
    middles = sorted(patch.get_x() + patch.get_width() / 2 for patch in figure.axes[0].patches)
    assert middles == pytest.approx([k + 0.16 * (i - 2) for k in range(7) for i in range(len(MODELS))])


def test_roc_areas_are_sklearns_and_the_curves_are_whole(run):
    _, data = plots.roc_curves(run.first_seeds[:2], "test")
    y_true, y_proba = run.first_seeds[1].select("test")
    for k, name in enumerate(CLASSES):
        rows = data[(data["model"] == "resnet50") & (data["class"] == name)]
        x, y = rows["false_positive_rate"], rows["true_positive_rate"]
        assert rows["auc"].iloc[0] == pytest.approx(sk.roc_auc_score(y_true == k, y_proba[:, k]))
        assert (x.iloc[0], y.iloc[0], x.iloc[-1], y.iloc[-1]) == (0, 0, 1, 1)
        assert sk.auc(x, y) == pytest.approx(rows["auc"].iloc[0], abs=0.01)


def test_a_class_without_images_has_no_curve_and_an_empty_row(smoke):
    assert set(plots.roc_curves([smoke], "test")[1]["class"]) == set(CLASSES) - {"disgust"}
    assert plots.confusion_matrices(smoke)[1].query("true == 'disgust'")["percent"].isna().all()


def test_thinning_keeps_the_ends_and_the_shape():
    x = np.linspace(0, 1, 5000)
    thin_x, thin_y = plots.thinned(x, np.sqrt(x), 80)
    assert len(thin_x) <= 82 and (thin_x[0], thin_x[-1]) == (0, 1)
    assert np.abs(np.interp(x, thin_x, thin_y) - np.sqrt(x)).max() < 0.02


def test_confusion_matrices_sample_and_whole(run):
    result = run.first_seeds[0]
    figure, data = plots.confusion_matrices(result, "test", per_class=30)
    assert set(data[data["sample"] == "balanced"].groupby("true")["n"].sum()) == {30}
    y_true, y_proba = result.select("test")
    whole = data[data["sample"] == "all"]["n"].to_numpy().reshape(7, 7)
    expected = sk.confusion_matrix(y_true, y_proba.argmax(axis=1))
    assert (whole == expected).all()
    # Rows are true, columns predicted, in the order of the classes.
    drawn = [float(text.get_text()) for text in figure.axes[1].texts]
    assert drawn == [round(100 * n / row.sum()) for row in expected for n in row]
    assert figure.axes[0].get_title() == "balanced: up to 30 per class, 210 images"


def test_reliability_diagram_names_the_error(run):
    figure, data = plots.reliability_diagram(run.first_seeds)
    error = statistics.calibration_error(statistics.reliability(*run.first_seeds[0].select("private")))
    assert data["ece"].iloc[0] == pytest.approx(error)
    assert f"ECE {error:.3f}" in figure.axes[0].get_title()


def test_selection_curves_mark_the_best_epoch(run):
    figure, data = plots.selection_curves(run.first_seeds)
    best = run.first_seeds[0].history["public_accuracy"].argmax()
    assert figure.axes[0].get_lines()[0].get_markevery() == [best]
    assert len(data) == len(MODELS) * len(run.first_seeds[0].history)


def test_threshold_curves_and_dots_draw_all_models(run):
    table = pd.DataFrame({"threshold": [0, 1], "precision": [0, 1], "recall": [1, 0], "accuracy": [0.5, 0.5]})
    table = pd.concat(table.assign(model=model, label=model) for model in MODELS)
    assert len(plots.threshold_curves(table)[0].axes) == len(MODELS)
    table = statistics.headline(run.first_seeds, "private", n_resamples=20).query("metric == 'accuracy'")
    (ax,) = plots.interval_dots(table.assign(subset="all"), rows="subset")[0].axes
    assert [line.get_xdata()[0] for line in ax.get_lines()] == list(table["value"])


def test_output_shows_the_curves_and_folds_the_summary(run, tmp_path):
    result = run.models[0]
    shown = model_figures.show_output(
        result.history, "Layer <1>", model=result.model, label=result.label, folder=tmp_path
    )
    soup = BeautifulSoup(shown._repr_html_(), "html.parser")
    assert soup.details.pre.get_text() == "Layer <1>" and soup.figure["id"] == "fig-3-12"
    data = pd.read_csv(tmp_path / "fig-3.12-output-traditional_cnn.csv")
    rows = data[(data["metric"] == "loss") & (data["part"] == "validation")]
    assert list(rows["value"]) == pytest.approx(list(result.history["val_loss"]), rel=1e-6)


def test_only_the_thesis_s_models_take_its_numbers():
    assert model_figures.figure_number("resnet50", 1) == "3.15"
    assert model_figures.figure_number("resnet50_scratch", 1) == "resnet50_scratch.2"
