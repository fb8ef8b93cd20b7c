"""A data set is called by its name and what it holds, in every table, file and page."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fissura.data.content import content_digest
from fissura.data.dataset_names import folder_name, name_of, unique_names
from fissura.data.datasets import Folder, parse_dataset
from fissura.data.labelled import ClassFolder, Patches, labelled_digest
from fissura.data.synthetic import SyntheticSpec, write
from fissura.deploy.model import open_model
from fissura.records import store
from fissura.reports.leaderboard import leaderboard
from fissura.segmentation.evaluation import evaluate

CPU = torch.device("cpu")


def folder(root: Path, *, seed: int) -> Path:
    """A folder of images and masks of its own."""
    write(SyntheticSpec(train=1, val=1, test=2, height=32, width=32, crack_width=(1.5, 4), seed=seed), root)
    return root


@pytest.fixture
def bridge(tmp_path: Path) -> Path:
    return folder(tmp_path / "bridge", seed=1)


@pytest.fixture
def tunnel(tmp_path: Path) -> Path:
    return folder(tmp_path / "tunnel", seed=2)


@pytest.fixture
def run(tmp_path: Path, write_segmenter: Callable) -> Path:
    run: Path = write_segmenter(tmp_path / "st" / "runs" / "one")
    return run


class TestTheName:
    def test_is_the_user_s_or_the_last_part_of_the_root(self) -> None:
        assert name_of(Folder(root=Path("/data/bridge")).plain()) == "bridge"
        assert name_of(Folder(root=Path("/data/bridge"), name="Brücke 7").plain()) == "Brücke 7"
        assert name_of(Folder(root=Path("/")).plain()) == "folder"
        assert name_of(ClassFolder(root=Path("/data/walls")).plain()) == "walls"
        assert name_of(Patches(source=Folder(root=Path("/data/bridge"))).plain()) == "bridge"
        assert name_of(Patches(source=Folder(root=Path("/d/x"), name="cut")).plain()) == "cut"
        assert name_of({"kind": "cfd"}) == "cfd", "as the manifests of earlier versions may have it"

    def test_is_given_on_the_command_line_behind_the_root(self, bridge: Path) -> None:
        assert name_of(parse_dataset(f"folder:{bridge}?name=span 3").plain()) == "span 3"

    def test_has_no_control_characters(self) -> None:
        assert name_of(Folder(root=Path("/data/a\nb")).plain()) == "a\N{REPLACEMENT CHARACTER}b"
        for name in ("", "a\nb", "a\x00"):
            with pytest.raises(ValueError, match="name"):
                Folder(root=Path("/data"), name=name)

    def test_of_several_data_sets_tells_them_apart(self) -> None:
        assert unique_names(["a", "b", "a", "a-2", "a"]) == ["a", "b", "a-2", "a-2-2", "a-3"]

    def test_is_no_part_of_what_a_data_set_holds(self, bridge: Path, tmp_path: Path) -> None:
        plain, named = Folder(root=bridge), Folder(root=bridge, name="the old one")
        assert content_digest([plain]) == content_digest([named])
        cut = [Patches(source=one, size=8, margin=0) for one in (plain, named)]
        assert labelled_digest([cut[0]], directory=tmp_path) == labelled_digest([cut[1]], directory=tmp_path)


class TestTwoFoldersOfOnesOwn:
    def test_are_told_apart_in_every_form_of_the_leaderboard(
        self, fissura: Callable, run: Path, bridge: Path, tunnel: Path
    ) -> None:
        names = {}
        for root in (bridge, tunnel):
            said = fissura("evaluate", run, "--data", f"folder:{root}")
            assert said.code == 0, said.said
            names[root.name] = content_digest([Folder(root=root)])[:8]
            assert f"{root.name} ({names[root.name]}) test, pixel, 2 images" in said.out
        shown = fissura("leaderboard", "show", run.parent).out
        for name, short in names.items():
            assert f"{name} ({short}) test, pixel, 2 images" in shown
        rows = json.loads(fissura("leaderboard", "show", run.parent, "--json").out)
        rows = rows if isinstance(rows, list) else next(iter(rows.values()))
        assert {row["data_name"]: row["data_digest"][:8] for row in rows} == names
        for kind, suffix in (("csv", "csv"), ("md", "md"), ("html", "html"), ("latex", "tex")):
            fissura("leaderboard", "export", run.parent, "--format", kind, "--out", run.parent)
            text = (run.parent / f"leaderboard.{suffix}").read_text("utf-8")
            for name, short in names.items():
                assert name in text
                assert short in text
        fissura("leaderboard", "export", run.parent, "--format", "parquet", "--out", run.parent)
        table = pq.read_table(run.parent / "leaderboard.parquet")
        assert set(table.column("data_name").to_pylist()) == set(names)

    def test_stay_apart_where_they_have_one_name(self, run: Path, bridge: Path, tunnel: Path) -> None:
        for root in (bridge, tunnel):
            evaluate(run, datasets=[Folder(root=root, name="wall")], device=CPU)
        tables = leaderboard(store.read_runs([run]).records).tables
        assert [table.data_name for table in tables] == ["wall", "wall"]
        assert len({table.data for table in tables}) == 2

    def test_of_equal_content_are_one_table_of_the_first_name(
        self, tmp_path: Path, write_segmenter: Callable, bridge: Path
    ) -> None:
        runs = [write_segmenter(tmp_path / "runs" / f"{seed}", seed=seed) for seed in (0, 1)]
        for run, name in zip(runs, ("first", "second"), strict=True):
            evaluate(run, datasets=[Folder(root=bridge, name=name)], device=CPU)
        (table,) = leaderboard(store.read_runs(runs).records).tables
        assert (table.data_name, len(table.standings[0].seeds)) == ("first", 2)

    def test_that_are_scored_together_have_a_table_each(
        self, run: Path, bridge: Path, tmp_path: Path
    ) -> None:
        other = folder(tmp_path / "other" / "bridge", seed=3)
        evaluate(run, datasets=[Folder(root=bridge), Folder(root=other)], device=CPU)
        tables = leaderboard(store.read_runs([run]).records).tables
        assert [table.data_name for table in tables] == ["bridge", "bridge-2"]


class TestARunOfAnEarlierVersion:
    """Its file has no column of names; its manifest knows where its own data lay."""

    def older(self, run: Path) -> list[store.RunRecord]:
        table = pq.read_table(run / store.FILE)
        metadata = table.schema.metadata
        pq.write_table(table.drop_columns(["data_name"]).replace_schema_metadata(metadata), run / store.FILE)
        return store.read_runs([run]).records

    def test_is_read_and_goes_by_the_kind(self, tmp_path: Path, write_scored_run: Callable) -> None:
        (table,) = leaderboard(self.older(write_scored_run(tmp_path / "a"))).tables
        assert table.data == "cfd (dddddddd)"

    def test_goes_by_the_root_in_its_manifest(self, tmp_path: Path, write_scored_run: Callable) -> None:
        (record,) = self.older(write_scored_run(tmp_path / "a"))
        data = record.manifest.data.model_copy(update={"datasets": ({"kind": "cfd", "root": "/data/road"},)})
        moved = replace(record, manifest=record.manifest.model_copy(update={"data": data}))
        assert leaderboard([moved]).tables[0].data == "road (dddddddd)"

    def test_can_be_evaluated_anew(self, tmp_path: Path, write_scored_run: Callable) -> None:
        run = write_scored_run(tmp_path / "a")
        self.older(run)
        write_scored_run(run, protocols=("tolerant:2",))
        (record,) = store.read_runs([run]).records
        assert record.table.schema.equals(store.SCHEMA)
        assert len(record.table) == 12


def test_a_model_s_card_says_what_it_was_trained_on(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    manifest["data"]["datasets"] = [{"kind": "folder", "root": "/data/bridge"}, {"kind": "cfd"}]
    (run / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    card = open_model(run, device=CPU, threshold=0.5).card
    assert card["trained_on"] == ["bridge", "cfd"]
    assert card["data_digest"] == "d" * 16


def test_scored_folders_go_by_the_folder_of_masks(fissura: Callable, bridge: Path, tunnel: Path) -> None:
    said: list[Any] = []
    for root in (bridge, tunnel):
        masks = root / "masks" / "test"
        for path in (masks if masks.is_dir() else root / "masks").glob("*.png"):
            place = root.with_name(f"{root.name} masks") / path.name
            place.parent.mkdir(exist_ok=True)
            Image.open(path).convert("L").save(place)
        folders = (place.parent, place.parent, "--protocol", "pixel")
        plain = json.loads(fissura("score", *folders, "--json").out)
        where = f"{root.parent.name}/{root.name} masks"
        assert plain["data_name"] == where
        assert f"{where} ({plain['data_digest'][:8]}): pixel at 0.5" in fissura("score", *folders).out
        said.append(plain["data_digest"])
    assert said[0] != said[1]
    named = json.loads(fissura("score", *folders, "--name", "tunnel", "--json").out)
    assert (named["data_name"], named["data_digest"]) == ("tunnel", said[1])


@pytest.mark.parametrize(
    ("folder", "name"),
    [("/", "/"), ("/masks", "masks"), ("/bridge/masks", "bridge/masks"), ("/a/bridge/masks", "bridge/masks")],
)
def test_a_folder_of_files_has_the_last_two_parts_of_its_path(folder: str, name: str) -> None:
    assert folder_name(Path(folder)) == name
