"""The figures' data against their sources, and that they draw for one model and for many."""

import numpy as np
import pytest
from planted import changed, plant_model, plant_run, planted_history, planted_predictions, planted_record
from sklearn import metrics as sk

from fer_utils.constants import CLASSES, USAGES
from fer_utils.findings import explanations, plots, statistics
from fer_utils.findings.results import read_model, read_run

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


def visible(figure):
    return [ax for ax in figure.get_axes() if ax.get_visible()]


def test_curves_draw_every_epoch_of_every_seed(run):
    figure, data = plots.curves(run.models, ["precision", "macro_precision"])
    assert len(visible(figure)) == 2 * len(MODELS)
    rows = data.query("model == 'vgg16' and seed == 1 and metric == 'precision' and part == 'validation'")
    assert list(rows["value"]) == list(run.by_name("vgg16")[1].history["val_precision"])
    assert len(data) == len(MODELS) * 2 * 2 * 2 * len(run.models[0].history)
    # Training and validation of two seeds in each panel.
    assert all(len(ax.get_lines()) == 4 for ax in visible(figure))


def test_the_curve_that_the_thesis_is_judged_on_is_drawn(run):
    """Under the sound protocol validation is PublicTest alone; the thesis validates on all test images."""
    result = run.first_seeds[0]
    history = result.history.assign(test_accuracy=result.history["val_accuracy"] - 0.1)
    figure, data = plots.curves([changed(result, history=history)], ["accuracy"])
    dotted = visible(figure)[0].get_lines()[2]
    assert dotted.get_linestyle() == ":" and list(dotted.get_ydata()) == list(history["test_accuracy"])
    assert list(data.loc[data["part"] == "test", "value"]) == list(history["test_accuracy"])
    assert len(figure.legends[0].get_texts()) == 3


def test_panels_of_a_block_share_their_axes(run):
    figure, _ = plots.curves(run.first_seeds, ["loss"])
    assert len({ax.get_ylim() for ax in visible(figure)}) == 1
    assert len({ax.get_xlim() for ax in visible(figure)}) == 1


def test_training_is_solid_and_validation_dashed(run):
    figure, _ = plots.curves(run.first_seeds[:1], ["accuracy"])
    training, validation = visible(figure)[0].get_lines()
    assert (training.get_linestyle(), validation.get_linestyle()) == ("-", "--")


def test_one_epoch_shows_markers(smoke):
    figure, data = plots.curves([smoke], ["accuracy"])
    assert all(line.get_marker() not in ("None", None, "") for line in visible(figure)[0].get_lines())
    assert len(data) == 2


def test_accuracy_bars_mark_the_thesis(run):
    table = statistics.headline(run.first_seeds, "test", n_resamples=50).query("metric == 'accuracy'")
    figure, data = plots.accuracy_bars(table, {"resnet50": 0.67, "not_run": 0.9})
    assert data.set_index("model").at["resnet50", "thesis"] == 0.67
    assert data["thesis"].notna().sum() == 1
    heights = [patch.get_height() for patch in visible(figure)[0].patches]
    assert heights == pytest.approx(list(table["value"]))
    assert "thesis, ResNet-50: 0.67" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_roc_areas_are_sklearns_and_the_curves_are_whole(run):
    _, data = plots.roc_curves(run.first_seeds[:2], "test")
    y_true, y_proba = run.first_seeds[1].select("test")
    for k, name in enumerate(CLASSES):
        rows = data[(data["model"] == "resnet50") & (data["class"] == name)]
        assert rows["auc"].iloc[0] == pytest.approx(sk.roc_auc_score(y_true == k, y_proba[:, k]))
        assert (rows["false_positive_rate"].iloc[0], rows["true_positive_rate"].iloc[0]) == (0, 0)
        assert (rows["false_positive_rate"].iloc[-1], rows["true_positive_rate"].iloc[-1]) == (1, 1)
        area = sk.auc(rows["false_positive_rate"], rows["true_positive_rate"])
        assert area == pytest.approx(rows["auc"].iloc[0], abs=0.01)


def test_roc_leaves_out_a_class_without_images(smoke):
    figure, data = plots.roc_curves([smoke])
    assert set(data["class"]) == set(CLASSES) - {"disgust"}
    assert len(visible(figure)) == 1


def test_thinning_keeps_the_ends_and_the_shape():
    x = np.linspace(0, 1, 5000)
    y = np.sqrt(x)
    thin_x, thin_y = plots.thinned(x, y, 80)
    assert len(thin_x) <= 82
    assert (thin_x[0], thin_x[-1]) == (0, 1)
    assert np.abs(np.interp(x, thin_x, thin_y) - y).max() < 0.02


def test_confusion_matrices_sample_and_whole(run):
    result = run.first_seeds[0]
    figure, data = plots.confusion_matrices(result, "test", per_class=30)
    balanced = data[data["sample"] == "balanced"].groupby("true")["n"].sum()
    assert set(balanced) == {30}
    y_true, y_proba = result.select("test")
    whole = data[data["sample"] == "all"]["n"].to_numpy().reshape(7, 7)
    assert (whole == sk.confusion_matrix(y_true, y_proba.argmax(axis=1))).all()
    assert "balanced: up to 30 a class, 210 images" in [ax.get_title() for ax in figure.get_axes()]


def test_confusion_matrix_with_a_missing_class(smoke):
    _, data = plots.confusion_matrices(smoke)
    assert data[data["true"] == "disgust"]["percent"].isna().all()


def test_reliability_diagram_names_the_error(run):
    figure, data = plots.reliability_diagram(run.first_seeds)
    error = statistics.calibration_error(statistics.reliability(*run.first_seeds[0].select("private")))
    assert data["ece"].iloc[0] == pytest.approx(error)
    assert f"ECE {error:.3f}" in figure.get_axes()[0].get_title()


def test_selection_curves_mark_the_best_epoch(run):
    figure, data = plots.selection_curves(run.first_seeds)
    history = run.first_seeds[0].history
    mark = visible(figure)[0].get_lines()[1]
    assert mark.get_xdata()[0] == history["epoch"][history["public_accuracy"].idxmax()]
    assert len(data) == len(MODELS) * len(history)


def test_threshold_curves_and_dots_draw_all_models(run):
    figure, _ = plots.threshold_curves(explanations.threshold_curves(run.first_seeds))
    assert len(visible(figure)) == len(MODELS)
    table = statistics.headline(run.first_seeds, n_resamples=20).query("metric == 'accuracy'")
    figure, _ = plots.interval_dots(table.assign(subset="all"), rows="subset")
    assert len(visible(figure)[0].get_lines()) == 2 * len(MODELS)


def test_class_counts_stack_to_the_total():
    counts = {usage: dict.fromkeys(CLASSES, n) for usage, n in zip(USAGES, (30, 4, 5), strict=True)}
    figure, data = plots.class_counts(counts, dict.fromkeys(CLASSES, 50))
    assert data[data["usage"] != "thesis"].groupby("class")["n"].sum().eq(39).all()
    assert data[data["usage"] == "thesis"]["n"].eq(50).all()
    assert [text.get_text() for text in figure.get_axes()[0].texts] == ["39"] * 7


def test_faces_show_so_many_of_each_class():
    labels = np.repeat(np.arange(7), [5, 2, 5, 5, 5, 5, 5])
    figure, data = plots.faces(np.zeros((len(labels), 48, 48), dtype=np.uint8), labels, per_class=3)
    assert data is None
    assert sum(len(ax.images) for ax in figure.get_axes()) == 6 * 3 + 2


SUMMARY = """Model: "m"
┏━━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━┓
┃ Layer (type) ┃ Output  ┃ Param # ┃
┡━━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━┩
│ base (Model) │ (None)  │     100 │
├──────────────┼─────────┼─────────┤
│    └ conv    │ (None)  │      90 │
│    └ relu    │ (None)  │       0 │
│ out (Dense)  │ (None)  │       8 │
└──────────────┴─────────┴─────────┘
 Total params: 108
"""


def test_summary_without_boxes_keeps_the_columns():
    lines = plots.plain_summary(SUMMARY).splitlines()
    assert lines[0] == 'Model: "m"'
    assert lines[1] == "Layer (type)  Output  Param #"
    assert lines[2] == "base (Model)  (None)      100"
    assert lines[-1] == "Total params: 108"


def test_long_summary_folds_the_nested_base_and_says_so():
    lines = plots.plain_summary(SUMMARY, most=6).splitlines()
    assert "... its 2 layers: see summary.txt" in lines[3]
    assert not any("conv" in line for line in lines)
    assert "out (Dense)" in lines[4]


def test_model_output_holds_training_and_validation(run):
    result = run.models[0]
    figure, data = plots.model_output(result.history, SUMMARY, label=result.label, model=result.model)
    assert len(figure.get_axes()) == 6
    rows = data.query("metric == 'loss' and part == 'validation'")
    assert list(rows["value"]) == list(result.history["val_loss"])
