"""``!include``: what is included, what is refused, and where mistakes in parts are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flambe.compile import Grid, yaml
from flambe.compile.checks.calls import check
from flambe.compile.reader import includes
from flambe.compile.reader.document import read_file, read_text
from flambe.errors import ConfigError

MAIN = "!Experiment\nname: x\npipeline:\n  layer: {part}\n"


def write(folder: Path, **parts: str) -> Path:
    """Write ``main.yaml`` and its parts; ``__`` in the name of a part is a folder."""
    for name, text in parts.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "main.yaml"


def stage(path: Path, name: str = "layer") -> Any:
    document = read_file(path)
    check(document)
    document.raise_problems()
    return document.root.kwargs["pipeline"][name]


def problems(path: Path) -> list[tuple[str, str, str]]:
    try:
        document = read_file(path)
        check(document)
        document.raise_problems()
    except ConfigError as error:
        return [(str(p.place), p.message, p.hint) for p in error.problems]
    return []


def test_parts_are_read_relative_to_the_file_that_includes_them(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main=MAIN.format(part="!include parts/layer.yaml"),
        parts__layer="!torch.Linear\nin_features: !include sizes.yaml\nout_features: 2\n",
        parts__sizes="!g [1, 2]\n",
    )
    assert stage(main).kwargs == {"in_features": Grid((1, 2)), "out_features": 2}
    written = MAIN.format(part="!torch.Linear {in_features: !g [1, 2], out_features: 2}")
    assert read_file(main).root == read_text(written).root


def test_a_part_can_be_merged(tmp_path: Path) -> None:
    part = "!torch.Linear\n    out_features: 7\n    <<: !include common.yaml"
    main = write(tmp_path, main=MAIN.format(part=part), common="in_features: 3\nout_features: 2\n")
    assert stage(main).kwargs == {"in_features": 3, "out_features": 7}


def test_mistakes_name_the_line_of_the_part(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main=MAIN.format(part="!include parts/layer.yaml"),
        parts__layer="# a comment\n!torch.Linear\nin_featurs: 3\nout_features: two\n",
    )
    file = f"{tmp_path}/parts/layer.yaml"
    assert problems(main) == [
        (
            f"{file}:3:1",
            "unknown keyword 'in_featurs' for !torch.Linear",
            "did you mean 'in_features'?",
        ),
        (
            f"{file}:4:15",
            "'out_features' of !torch.Linear cannot be 'two'",
            "expected whole number",
        ),
    ]


def test_a_part_that_is_not_yaml_is_reported_with_the_rest(tmp_path: Path) -> None:
    main = write(tmp_path, main=MAIN.format(part="!include a.yaml") + "sed: 1\n", a="x: [1\n")
    places = [place for place, _, _ in problems(main)]
    assert places == [f"{main}:5:1", f"{tmp_path}/a.yaml:2:1"]


def test_two_inclusions_are_two_objects_and_an_alias_is_one(tmp_path: Path) -> None:
    part = "!torch.Sequential\n    - &first !include a.yaml\n    - *first\n    - !include a.yaml"
    main = write(tmp_path, main=MAIN.format(part=part), a="!torch.ReLU\n")
    built = stage(main)()
    assert built[0] is built[1]
    assert built[0] is not built[2]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("../secret.yaml", "!include ../secret.yaml leads out of the folder of the configuration"),
        ("/etc/hostname", "!include /etc/hostname leads out of the folder of the configuration"),
        ("link.yaml", "!include link.yaml leads out of the folder of the configuration"),
        ("modle.yaml", "there is no file '{folder}/modle.yaml'"),
        ("parts", "cannot read '{folder}/parts': "),
        ("fifo.yaml", "cannot read '{folder}/fifo.yaml': "),
        ("two.yaml", "{folder}/two.yaml has 2 YAML documents"),
        ("nothing.yaml", "{folder}/nothing.yaml is empty"),
        ("main.yaml", "{folder}/main.yaml includes itself: "),
        ("loop.yaml", "{folder}/loop.yaml includes itself: "),
        ("[a.yaml]", "!include takes the path of one file"),
        ("", "!include takes the path of one file"),
    ],
)
def test_what_is_refused(tmp_path: Path, written: str, message: str) -> None:
    import os

    folder = tmp_path / "config"
    folder.mkdir()
    (tmp_path / "secret.yaml").write_text("1\n")
    (folder / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    (folder / "parts").mkdir()
    os.mkfifo(folder / "fifo.yaml")
    main = write(
        folder,
        main=MAIN.format(part=f"!include {written}"),
        model="!torch.ReLU\n",
        two="x: 1\n---\n!torch.ReLU\n",
        nothing="# nothing\n",
        loop="!torch.Sequential\n- !include loop.yaml\n",
    )
    [(place, text, hint)] = problems(main)
    assert text.startswith(message.format(folder=folder))
    assert hint
    assert place == (f"{folder}/loop.yaml:2:3" if written == "loop.yaml" else f"{main}:4:10")
    if written == "modle.yaml":
        assert hint == "did you mean 'model.yaml'?"
    if written == "loop.yaml":
        assert text.endswith(f"{main} → {folder}/loop.yaml → {folder}/loop.yaml")


@pytest.mark.torch
def test_how_deep_and_how_often_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = {f"p{i}": f"- !include p{i + 1}.yaml\n" for i in range(12)}
    main = write(tmp_path, main=MAIN.format(part="!torch.Sequential [!include p0.yaml]"), **chain)
    [(place, text, _)] = problems(main)
    assert (place, text) == (
        f"{tmp_path}/p9.yaml:1:3",
        f"files include one another more than {includes.MAX_NESTED} deep",
    )
    monkeypatch.setattr(includes, "MAX_INCLUDED", 20)
    # 2 ** 6 files, if nothing bounded them.
    twice = {f"p{i}": f"- !include p{i + 1}.yaml\n" * 2 for i in range(6)}
    main = write(tmp_path, main=MAIN.format(part="!include p0.yaml"), **twice, p6="1\n")
    assert "more than 20 inclusions" in [text for _, text, _ in problems(main)]


def test_a_text_and_a_saved_component_include_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="!include is not possible in a text"):
        yaml.load("!torch.Linear\nin_features: !include a.yaml\nout_features: 1\n")
    main = write(tmp_path, main="!torch.Sequential\n- !include a.yaml\n", a="!torch.ReLU\n")
    document = read_file(main, declared=())
    assert [p.message for p in document.problems] == [
        "!include is not possible in a saved component"
    ]
