"""Bad deployments are refused with the file, the key and the nearest valid name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from acceptance.deployments.load import (
    SHIPPED,
    load_deployments,
    match,
    read_deployment,
    with_options,
)
from acceptance.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
name = "site-fp4"
model = "nvidia/DeepSeek-R1-FP4"
precision = "fp4"
gpus = { kind = "B200", count = 4 }
layout = { tensor = 4, expert = true }
[options]
moe_backend = "flashinfer"
"""

BAD = {
    "unknown key at the top": ('modle = "x"\n' + GOOD, "unknown key 'modle'", "'model'"),
    "unknown key in options": (
        GOOD + "max_modellen = 1\n",
        "unknown key 'options.max_modellen'",
        "'max_model_len'",
    ),
    "unknown key in budgets": (
        GOOD + "[budgets]\nstrat = 3.0\n",
        "unknown key 'budgets.strat'",
        "'start'",
    ),
    "unknown key in layout": (
        GOOD.replace("tensor", "tensors"),
        "unknown key 'layout.tensors'",
        "'tensor'",
    ),
    "malformed": (GOOD + "x = =\n", "not valid TOML", "line 9"),
    "text for a number": (GOOD + 'max_model_len = "65536"\n', "options.max_model_len", "integer"),
    "number for text": (GOOD.replace('"flashinfer"', "3"), "options.moe_backend", "string"),
    "boolean for a number": (GOOD + "max_model_len = true\n", "options.max_model_len", "integer"),
    "fraction of a token": (GOOD + "max_model_len = 1.5\n", "options.max_model_len", "integer"),
    "not a number": (GOOD + "gpu_memory_utilization = nan\n", "gpu_memory_utilization", "finite"),
    "more than all memory": (
        GOOD + "gpu_memory_utilization = 1.5\n",
        "gpu_memory_utilization",
        "less than or equal to 1",
    ),
    "no shutdown time": (GOOD + "shutdown_timeout = 0\n", "shutdown_timeout", "greater than 0"),
    "unknown precision": (GOOD.replace('"fp4"', '"int3"'), "precision", "'fp8', 'fp4' or 'bf16'"),
    "unknown lane": ('lane = "slow"\n' + GOOD, "lane", "'rehearsal'"),
    "unknown GPU": (GOOD.replace("B200", "V100"), "gpus", "'V100' is none of H100, H200"),
    "GPUs without a kind": (GOOD.replace('kind = "B200", ', ""), "gpus", "kind and count"),
    "missing key": (GOOD.replace("model = ", "# "), "key 'model' is missing", ""),
    "missing nested key": (GOOD.replace(", count = 4", ""), "key 'gpus.count' is missing", ""),
    "a table for text": (GOOD.replace('"site-fp4"', "{ a = 1 }"), "name", "string"),
    "text for a table": ("options = 3\n" + GOOD.split("[options]")[0], "options", "Options"),
    "text for budgets": ("budgets = 3\n" + GOOD, "budgets", "Budgets"),
    "a flag for a model": (GOOD.replace('"nvidia/', '"--help/'), "model", "pattern"),
    "a flag for a backend": (GOOD.replace('"flashinfer"', '"--port"'), "moe_backend", "pattern"),
    "a path for a name": (GOOD.replace("site-fp4", "../site"), "name", "pattern"),
    "rehearsal option elsewhere": (
        GOOD + "kv_cache_gib = 1.0\n",
        "options.kv_cache_gib is for the rehearsal lane",
        "",
    ),
    "drains longer than it may take": (
        GOOD + "shutdown_timeout = 60\n",
        "options.shutdown_timeout (60 s) must be shorter than budgets.stop (60 s)",
        "",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, case: str) -> None:
    text, problem, help_ = BAD[case]
    file = tmp_path / "site.toml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_deployments([tmp_path])
    assert str(file) in str(caught.value)
    assert problem in str(caught.value)
    assert help_ in str(caught.value)


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text('modle = "x"\n' + GOOD + "max_modellen = 1\n")
    with pytest.raises(InputError, match=r"modle.*; .*max_modellen|max_modellen.*; .*modle"):
        read_deployment(file)


def test_a_site_adds_a_folder_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(GOOD)
    for path in (tmp_path, file):
        assert load_deployments([path])["site-fp4"].budgets.start == 3600
    assert list(load_deployments([SHIPPED])) == list(load_deployments())


def test_one_budget_may_be_changed_alone(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(GOOD + "[budgets]\nstart = 99\n")
    budgets = read_deployment(file).budgets
    assert (budgets.start, budgets.silence) == (99, 900)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("one.toml", "two.toml"):
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(InputError) as caught:
        load_deployments([tmp_path])
    assert "'site-fp4'" in caught.value.happened
    assert "one.toml" in caught.value.asked
    assert "two.toml" in caught.value.asked


def test_a_shipped_name_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD.replace("site-fp4", "fp4-4xb200-tp-ep"))
    with pytest.raises(InputError, match="two files name a deployment 'fp4-4xb200-tp-ep'"):
        load_deployments([tmp_path])


def test_missing_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or directory"):
        load_deployments([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no such file or directory"):
        load_deployments([tmp_path / "nothing.toml"])
    with pytest.raises(InputError, match=r"holds no \*\.toml"):
        load_deployments([tmp_path])
    with pytest.raises(InputError, match="cannot be read"):
        read_deployment(tmp_path / "nothing.toml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"x\.toml: cannot be read"):
        load_deployments([tmp_path])


OPTIONS = {
    "max_model_len=32768": ("max_model_len", 32768),
    "gpu_memory_utilization=0.95": ("gpu_memory_utilization", 0.95),
    "deep_gemm=true": ("deep_gemm", True),
    "deep_gemm=0": ("deep_gemm", False),
    "attention_backend=FLASHMLA": ("attention_backend", "FLASHMLA"),
    "kv_cache_dtype = fp8": ("kv_cache_dtype", "fp8"),
    "moe_backend=": ("moe_backend", None),
    "enforce_eager=true": ("enforce_eager", True),
}


@pytest.mark.parametrize("setting", OPTIONS)
def test_an_option_is_set_from_the_command_line(setting: str) -> None:
    deployment = load_deployments()["fp4-4xb200-tp-ep"]
    name, value = OPTIONS[setting]
    changed = with_options(deployment, [setting])
    assert getattr(changed.options, name) == value
    assert type(getattr(changed.options, name)) is type(value)
    assert changed.digest != deployment.digest
    assert changed.model_copy(update={"options": deployment.options}) == deployment


def test_the_last_setting_of_an_option_holds() -> None:
    deployment = load_deployments()["fp4-4xb200-tp-ep"]
    changed = with_options(deployment, ["max_model_len=1", "max_model_len=2"])
    assert changed.options.max_model_len == 2
    assert with_options(deployment, []) == deployment


REFUSED = {
    "max_modellen=1": "no option 'max_modellen'; did you mean 'max_model_len'",
    "max_model_len": "'max_model_len' is not NAME=VALUE",
    "max_model_len=64k": "option max_model_len = '64k'",
    "max_model_len=-1": "greater than 0",
    "deep_gemm=perhaps": "boolean",
    "shutdown_timeout=": "integer",
    "shutdown_timeout=600": "must be shorter than budgets.stop",
    "kv_cache_gib=1": "is for the rehearsal lane",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_a_bad_option_is_refused(setting: str) -> None:
    deployment = load_deployments()["fp4-4xb200-tp-ep"]
    with pytest.raises(InputError) as caught:
        with_options(deployment, [setting])
    assert REFUSED[setting] in str(caught.value)
    assert f"--option {setting}" in caught.value.asked


NAMES = ["fp8-8xh200-tp-ep", "fp8-8xh200-dp-ep", "rehearsal-tp-ep"]


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        ([], NAMES),
        (["*-dp-ep"], NAMES[1:2]),
        (["rehearsal-*", "fp8-8xh200-tp-ep"], [NAMES[0], NAMES[2]]),
        (["fp[48]-*"], NAMES[:2]),
        (["*", "rehearsal-tp-ep"], NAMES),
    ],
)
def test_names_are_matched_in_their_own_order(globs: list[str], expected: list[str]) -> None:
    assert match(NAMES, globs) == expected


def test_a_pattern_without_match_names_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        match(NAMES, ["*-dp-ep", "fp8-8xh200-tp"])
    assert "no deployment matches 'fp8-8xh200-tp'" in caught.value.happened
    assert "did you mean 'fp8-8xh200-tp-ep'" in caught.value.happened
    assert "rehearsal-tp-ep" in caught.value.hint
