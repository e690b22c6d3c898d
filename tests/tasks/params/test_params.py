import copy
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from tasks.data.arrays import Fit
from tasks.params.address import DOWNLOAD_URL
from tasks.params.data import SplitParams
from tasks.params.params import load_params, parse_params, read_yaml
from tasks.stage.errors import InputError

ROOT = Path(__file__).parents[3]
VALUES = YAML(typ="safe").load(ROOT / "params.yaml")


def changed(key: str, value: Any) -> Any:
    values = copy.deepcopy(VALUES)
    *path, last = key.split(".")
    section = values
    for part in path:
        section = section[part]
    section[last] = value
    return values


def test_the_repositorys_parameters_are_valid() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.recipe == params.recipes[params.train.recipe]


def test_a_probe_begins_nowhere() -> None:
    for start in ("champion", "0123456789abcdef"):
        values = changed("train.start", start)
        assert parse_params(values, "params.yaml").train.start == start
        values["train"]["recipe"] = "probe"
        with pytest.raises(
            InputError, match=f"train.start = {start}: recipe probe is a probe, which takes no training"
        ):
            parse_params(values, "params.yaml")


def test_only_the_weights_of_a_release_are_shrunk() -> None:
    values = changed("train.shrink_perturb", {"shrink": 0.4, "perturb": 0.1})
    with pytest.raises(InputError, match="train: shrink_perturb is of a release's weights, and start = scratch begins"):
        parse_params(values, "params.yaml")
    values["train"]["start"] = "champion"
    mixture = parse_params(values, "params.yaml").train.shrink_perturb
    assert mixture is not None
    assert (mixture.shrink, mixture.perturb) == (0.4, 0.1)
    values["train"]["shrink_perturb"]["shrink"] = 0
    with pytest.raises(InputError, match=r"train\.shrink_perturb\.shrink = 0: input should be greater than 0"):
        parse_params(values, "params.yaml")


def test_the_champion_to_begin_from_is_the_pinned_one_and_no_other_start_asks_for_it() -> None:
    values = changed("weights.release", "0123456789abcdef")
    begun = {}
    for start in ("scratch", "champion", "a" * 16):
        values["train"]["start"] = start
        begun[start] = parse_params(values, "params.yaml").begins_from
    assert begun == {"scratch": None, "champion": "0123456789abcdef", "a" * 16: "a" * 16}
    values["train"]["start"], values["weights"]["release"] = "champion", None
    assert parse_params(values, "params.yaml").begins_from is None


def test_parameters_are_frozen() -> None:
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(ValidationError):
        params.train.seed = 1


def test_one_address_is_as_good_as_several() -> None:
    params = parse_params(changed("download.url", "file:///archive.tar.gz"), "params.yaml")
    assert params.download.url == ("file:///archive.tar.gz",)


def test_a_wrong_key_in_an_optional_group_is_told_the_keys_of_that_group() -> None:
    with pytest.raises(InputError, match=r"shrink\.shar = 0\.5: no such parameter; allowed are size, share"):
        parse_params(changed("recipes.fast.augment.shrink", {"size": 24, "share": 0.5, "shar": 0.5}), "params.yaml")
    with pytest.raises(InputError, match=r"erase\.probabilty = 0\.5: no such parameter; allowed are probability, area"):
        parse_params(changed("recipes.fast.augment.erase", {"probabilty": 0.5}), "params.yaml")


def test_batch_norm_is_for_vgg16_without_weights() -> None:
    values = {"base": "vgg16", "head": "linear", "batch_norm": True, "weights": "imagenet"}
    with pytest.raises(InputError, match=r"fast\.model: batch_norm = true is for base vgg16 with weights none"):
        parse_params(changed("recipes.fast.model", values), "params.yaml")


def test_what_would_undo_pretrained_weights_is_refused() -> None:
    for changes, sentence in (
        ({("recipes", "finetune", "optimizer", "name"): "muon"}, "muon gives every kernel a norm of its own"),
        (
            {
                ("train", "recipe"): "finetune",
                ("train", "start"): "champion",
                ("train", "shrink_perturb"): {"shrink": 0.4, "perturb": 0.1},
            },
            "shrink_perturb: recipe finetune begins with pretrained weights",
        ),
    ):
        values = copy.deepcopy(VALUES)
        for (*parents, last), value in changes.items():
            section = values
            for part in parents:
                section = section[part]
            section[last] = value
        with pytest.raises(InputError, match=sentence):
            parse_params(values, "params.yaml")


def test_two_averages_of_the_same_weights_are_refused() -> None:
    sentence = r"yaml: recipes\.best: lookahead and averaging are two averages of the same weights: one of them must be"
    with pytest.raises(InputError, match=sentence):
        parse_params(changed("recipes.best.averaging", {"decay": 0.99}), "params.yaml")
    with pytest.raises(InputError, match=r"recipes\.finetune\.averaging\.decay = 1: input should be less than 1"):
        parse_params(changed("recipes.finetune.averaging", {"decay": 1}), "params.yaml")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"base": "convnext_tiny", "weights": "none"},
            "weights of convnext_tiny is imagenet; the section",
        ),
        ({"base": "convnext_tiny", "weights": "imagenet", "frozen_stages": 5}, "= 5: convnext_tiny has 4 stages"),
        ({"base": "resnet50", "frozen_stages": 2}, "= 2 of weights by chance: with weights none it is 0"),
    ],
)
def test_only_stages_that_came_with_weights_may_be_frozen(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=f"fast.model: .*{sentence}"):
        parse_params(changed("recipes.fast.model", {"head": "linear", **values}), "params.yaml")


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        (
            "fast.model.weights",
            "imagenet",
            "weights is no setting of base airbench, which has activation, batch_norm_mom",
        ),
        (
            "seed.model.widths",
            [8, 8, 8],
            "widths is no setting of base vgg16, which has batch_norm, batch_norm_momentum,",
        ),
        ("seed.model.pooling", "max", "pooling is no setting of head residual_separable, which has no settings"),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(key: str, value: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_params(changed(f"recipes.{key}", value), "params.yaml")


def test_what_a_release_records_with_every_default_is_valid() -> None:
    params = load_params(ROOT / "params.yaml")
    for recipe in params.recipes:
        used = params.model_copy(update={"train": params.train.model_copy(update={"recipe": recipe})}).used()
        assert parse_params(used, "manifest").recipe == params.recipes[recipe]


def test_params_without_a_fit_squash_and_ours_crop() -> None:
    values = copy.deepcopy(VALUES)
    assert parse_params(values, "params.yaml").split.fit == "crop"
    del values["split"]["fit"]
    assert parse_params(values, "params.yaml").split.fit == "squash"
    assert get_args(SplitParams.model_fields["fit"].annotation) == get_args(Fit)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("publsh", 1, "allowed are download, split"),
        ("train.batchsize", 1, "allowed are recipe, seed"),
        ("recipes.fast.learning_rat", 1, "allowed are epochs"),
        ("recipes.fast.model.wdths", 3, "allowed are base, head"),
        ("recipes.best.lookahead.evry", 1, "allowed are every"),
        ("recipes.finetune.schedule.watch", "f1", "'loss', 'top1' or 'balanced_accuracy'"),
        ("recipes.probe.epochs", 3, "no such parameter; allowed are method, model"),
        ("recipes.probe.method", "prob", "input should be 'probe'"),
        ("recipes.probe.model.bas", 1, "no such parameter; allowed are base, head"),
        ("recipes.probe", 3, "input should be a valid dictionary"),
        ("train.checkpoint_remote", "http://bucket/prefix", "pattern"),
        ("train.checkpoint_remote", "s3://bucket", "pattern"),
        ("train.checkpoint_every_seconds", 0, "greater than 0"),
        ("split.validation_fraction", 0, "greater than 0"),
        ("split.validation_fraction", 1, "less than 1"),
        ("split.method", "random", "'auto', 'stable', 'stratified' or 'tail'"),
        ("split.fit", "stretch", "'crop', 'pad' or 'squash'"),
        ("split.group", "(", "is no regular expression"),
        ("recipes.fast.batch_size", 0, "greater than 0"),
        ("recipes.fast.batch_size", "many", "valid integer"),
        ("recipes.fast.model.base", "vgg17", "'vgg16', 'resnet50', 'airbench', 'efficientnet_lite0'"),
        ("recipes.fast.model.head", "deep", "'residual_separable' or 'linear'"),
        ("recipes.finetune.augment.resized_crop", [0.9, 0.3], "the smaller share stands first"),
        ("recipes.finetune.augment.rotate", 270, "less than or equal to 180"),
        ("recipes.finetune.augment.brightness", 1.5, "less than or equal to 1"),
        ("recipes.finetune.augment.mixup", -0.2, "greater than or equal to 0"),
        ("train.recipe", "nope", "fast, seed"),
        ("train.start", "best", "train.start: 'best' is not scratch, champion or a release's id of 16 hexadecimal"),
        ("train.start", 1234567890123456, r"in quotes: YAML takes some for numbers"),
        ("train.start", "0123abcd", "is not scratch, champion or a release's id"),
        ("train.shrink_perturb", 0.4, "should be a valid dictionary"),
        ("weights.release", "champion", "weights.release = 'champion': string should match pattern"),
        ("train.devices", "tpu:0", "auto, cpu:N or gpu:0,1"),
        ("train.devices", "cpu:0", "auto, cpu:N or gpu:0,1"),
        ("download.dataset", "imagenet", "'cifar10', 'folders' or 'digits'"),
        ("download.url", "ftp", "http://, https://, file:// or s3://"),
        ("download.sha256", "abc", "pattern"),
        ("train.checkpoint_remote", "s3://bucket/a/../b", "a part that is . or .."),
        ("publish.bucket", "Not A Bucket", "pattern"),
        ("publish.prefix", "..", "a part that is . or .."),
        ("publish.minimum_top1", 1.1, "less than or equal to 1"),
        ("publish.significance", 0, "greater than 0"),
        ("publish.significance", 1, "less than 1"),
        ("publish.tolerance_top1", -0.1, "greater than or equal to 0"),
        ("publish.largest_class_drop", 1.5, "less than or equal to 1"),
        ("publish.largest_calibration_rise", "little", "valid number"),
        ("publish.largest_answer_difference", 0, "greater than 0"),
        ("evaluate.test_time_augmentation", "all", "'none', 'mirror' or 'mirror_and_shift'"),
    ],
)
def test_a_bad_parameter_is_named_with_its_value_and_what_is_allowed(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_params(changed(key, value), "params.yaml")
    sentence = str(caught.value)
    assert sentence.startswith("params.yaml: ")
    assert key in sentence
    assert repr(value).strip("'") in sentence
    assert allowed.replace("fast, seed", "") in sentence
    assert "\n" not in sentence


def test_a_missing_parameter_is_named() -> None:
    values = copy.deepcopy(VALUES)
    del values["recipes"]["seed"]["epochs"]
    with pytest.raises(InputError, match=r"recipes\.seed\.epochs is missing"):
        parse_params(values, "params.yaml")


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "just words", "a: [1", "a: 1\na: 2\n"])
def test_what_is_not_a_set_of_parameters_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"params\.yaml"):
        load_params(path)


@pytest.mark.parametrize("stage", ["download", "split"])
def test_a_stage_ends_with_one_sentence_and_status_two(tmp_path: Path, stage: str) -> None:
    (tmp_path / "params.yaml").write_text("nonsense: 1\n")
    command = [sys.executable, "-m", f"tasks.{stage}"]
    environment = {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(f"{stage}: params.yaml: ")
    assert result.stderr.count("\n") == 1
    assert "nonsense" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["params.yaml"]


def test_an_address_is_not_shown_whole_since_it_may_hold_a_password() -> None:
    with pytest.raises(InputError) as caught:
        parse_params(changed("download.url", "ftp://name:secret@host/file"), "params.yaml")
    assert "ftp://…" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["name:PLANTED@host:/file", "//name:PLANTED@host/file", "PLANTED@host", "name:PLANTED", "https:name:PLANTED@host"],
)
def test_of_a_malformed_address_nothing_is_shown(address: str) -> None:
    with pytest.raises(InputError, match=r"download\.url.* an address that is not shown") as caught:
        parse_params(changed("download.url", address), "params.yaml")
    assert "PLANTED" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["https://host/file#PLANTED", "https://host/a;sig=PLANTED/b", "s3://bucket/a#PLANTED"]
)
def test_fragments_and_path_parameters_are_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"a fragment or a path parameter .* leave it out") as caught:
        parse_params(changed("download.url", address), "params.yaml")
    assert "PLANTED" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "https://name:PLANTED@host/file",
        "s3://PLANTED@bucket/file",
        "https://host/file?X-Amz-Signature=PLANTED",
        "https://host/file?a=1&sig=PLANTED",
        "https://host/file?AWSAccessKeyId=PLANTED",
        "https://host/file?access_token=PLANTED",
        "https://host/file?api-key=PLANTED",
        "https://host/file?rlkey=PLANTED&dl=1",
        "https://host/file?sp=r&st=2026&e=PLANTED",
        "https://host/file?PLANTED",
        "https://host/file%3Ftoken=PLANTED",
        "https:///name:PLANTED@host/file",
    ],
)
def test_an_address_with_a_credential_is_refused_since_parameters_are_recorded(address: str) -> None:
    for value in (address, ["https://host/file", address]):
        with pytest.raises(InputError, match=r"download\.url.*: an address holds a password or a signature") as caught:
            parse_params(changed("download.url", value), "params.yaml")
        assert "PLANTED" not in str(caught.value)
        assert DOWNLOAD_URL in str(caught.value)


@pytest.mark.parametrize("address", ["https://host/a@b.tar.gz", "https://host/file?download=1", "file:///a/b@c"])
def test_an_address_without_a_credential_is_accepted(address: str) -> None:
    assert parse_params(changed("download.url", address), "params.yaml").download.url == (address,)


def test_addresses_with_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DOWNLOAD_URL, "https://name:PLANTED@host/a https://host/b?sig=PLANTED")
    params = parse_params(changed("download.url", []), "params.yaml")
    assert params.download.addresses == ("https://name:PLANTED@host/a", "https://host/b?sig=PLANTED")
    assert "PLANTED" not in params.model_dump_json()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.checkpoint_remote", "s3://key:PLANTED@bucket/prefix"),
        ("publish.bucket", "https://host/bucket?token=PLANTED"),
        ("publish.aws_secret_access_key", "PLANTED"),
        ("train.seed", ["https://name:PLANTED@host"]),
        ("train.seed", "name:PLANTED@host:/x"),
        ("train.checkpoint_remote", "//name:PLANTED@host/x"),
        ("publish.bucket", "bucket#PLANTED"),
        ("publish.prefix", "https://host/a;sig=PLANTED"),
    ],
)
def test_a_credential_in_the_wrong_place_is_not_shown(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=key) as caught:
        parse_params(changed(key, value), "params.yaml")
    assert "PLANTED" not in str(caught.value)


def test_a_credential_in_broken_yaml_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("download:\n  url: https://name:PLANTED@host/file: [\n")
    with pytest.raises(InputError, match="is not YAML") as caught:
        load_params(path)
    assert "PLANTED" not in str(caught.value)


def test_a_value_without_end_is_shown_cut_short() -> None:
    levels = "\n".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 30))
    with pytest.raises(InputError, match="no such parameter") as caught:
        parse_params(read_yaml(f"a0: &a0 [x]\n{levels}\n", "params.yaml"), "params.yaml")
    assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"recipes\.fast\.epochs = "):
        parse_params(changed("recipes.fast.epochs", value), "params.yaml")
