from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from damage import edit_json, flip_bit
from incatalog import Catalog, Item, Recommender
from incatalog.data.vector_blocks import BLOCKS_FILE, VectorBlocks, blocks_of
from incatalog.data.vectors import load_vectors, save_vectors
from incatalog.embedding.embed import embed_items
from incatalog.embedding.liked import Liked
from incatalog.embedding.settings import EmbedSettings
from incatalog.errors import ArtifactError, ConfigError, VectorError
from incatalog.model.backbone import Backbone
from incatalog.model.head import RetrievalHead
from incatalog.model.spec import ModelSpec
from incatalog.serving.catalogs import Domain
from incatalog.serving.store import CatalogStore, NewItem


@pytest.fixture
def joined(tmp_path: Path, taken: Path, decoder_folder: Path, network: Path) -> EmbedSettings:
    """Settings that join texts and a teacher's embeddings; they have been run."""
    settings = EmbedSettings(
        data=taken, out=tmp_path / "joined", source="both", encoder="causal",
        model=str(decoder_folder), wording="t", teacher=(str(network),), device="cpu",
    )  # fmt: skip
    embed_items(settings)
    return settings


@pytest.fixture
def grown(tmp_path: Path, taken: Path) -> Path:
    """The films in another order, one of them renamed, with one more."""
    items = list(Catalog.load(taken).items)[::-1]
    items[4] = replace(items[4], title="Renamed")
    folder = tmp_path / "grown"
    Catalog.from_items([Item("new", "New film"), *items], "grown").save(folder)
    return folder


def like(folder: Path, data: Path, out: Path) -> Path:
    return embed_items(EmbedSettings(data=data, out=out, like=str(folder), device="cpu"))


def test_known_items_keep_their_vectors_and_new_ones_get_that_of_their_text(
    joined: EmbedSettings, grown: Path, tmp_path: Path
) -> None:
    run = joined.out
    blocks = VectorBlocks.load(run)
    before = load_vectors(run / "taken.emb-decoder0-t-teacher.npy")
    path = like(run, grown, tmp_path / "liked")
    found = load_vectors(path, 51)
    expected = before[::-1].copy()
    texts = embed_items(replace(joined, data=grown, source="text", teacher=(), out=tmp_path / "t"))
    assert blocks.text is not None
    width = blocks.text.width
    for row in (0, 5):
        text = blocks.text.part(load_vectors(texts)[[row]])[0]
        np.testing.assert_allclose(found[row, :width], text, atol=1e-5)
        assert not found[row, width:].any()
    others = [row for row in range(1, 51) if row != 5]
    assert np.array_equal(found[others], expected[[row - 1 for row in others]])
    # What was made like something is something to make others like.
    assert blocks_of(path) == blocks
    again = like(path.parent, grown, tmp_path / "again")
    assert np.array_equal(load_vectors(again), found)


def test_a_model_takes_new_items_with_vectors_like_its_own(
    joined: EmbedSettings, taken: Path, tmp_path: Path, tiny_backbone: Backbone
) -> None:
    path = next(joined.out.glob("*.npy"))
    given, blocks = load_vectors(path), blocks_of(path)
    head = RetrievalHead.create(32, given, blocks=blocks, train_vectors=True)
    head.vectors.data += 0.25  # as a training does
    model = tmp_path / "model"
    head.save(model)
    catalog = Catalog.load(taken)
    catalog.save(model)
    hint = "make them with `incatalog items embed --like MODEL --data DATA --out OUT`"
    assert hint in RetrievalHead.load(model).how_to_embed()

    added = Item("new", "New film")
    folder = tmp_path / "grown"
    Catalog.from_items([*catalog.items, added], "grown").save(folder)
    found = load_vectors(like(model, folder, tmp_path / "liked"))
    moved = given + 0.25 * head.scale.item()
    np.testing.assert_allclose(found[:50], moved, atol=1e-5)

    spec = ModelSpec(base="tiny", method="ret")
    backbone = replace(tiny_backbone, head=RetrievalHead.load(model))
    domain = Domain("films", Recommender(backbone, spec, catalog), CatalogStore(tmp_path / "s"))
    with pytest.raises(VectorError, match=r"item 'new': a vector of 0 numbers; .* --like MODEL"):
        asyncio.run(domain.put([NewItem(added)]))
    asyncio.run(domain.put([NewItem(added, vector=tuple(map(float, found[50])))]))
    recommender = domain.version.recommender
    retriever = recommender.items.grounding.retriever
    assert retriever is not None
    served = retriever.head.given_vectors()[recommender.catalog.row("new")]
    np.testing.assert_allclose(served, found[50], atol=1e-5)
    assert retriever.head.blocks == blocks
    best = {one.item_id for one in recommender.recommend(["i1"], 50, decode="beam")}
    assert "new" in best


def test_vectors_of_teachers_alone_give_new_items_the_mean(
    joined: EmbedSettings, grown: Path, tmp_path: Path
) -> None:
    settings = replace(joined, source="teacher", out=tmp_path / "alone")
    path = embed_items(settings)
    assert path.name == "taken.emb-teacher.npy"
    found = load_vectors(like(path.parent, grown, tmp_path / "liked"))
    assert not found[[0, 5]].any()
    assert np.array_equal(found[1:5], load_vectors(path)[:-5:-1])


def test_what_nothing_can_be_made_like_is_refused(
    joined: EmbedSettings, grown: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"--like .*/empty: expected a finished run of"):
        Liked.load(tmp_path / "empty")
    texts = embed_items(replace(joined, source="text", teacher=(), out=tmp_path / "texts"))
    said = r"hold nothing of teachers; make others with `incatalog items embed --encoder causal"
    with pytest.raises(ConfigError, match=said):
        like(texts.parent, grown, tmp_path / "a")
    model = tmp_path / "model"
    RetrievalHead.create(32, load_vectors(texts), origin="films.npy").save(model)
    with pytest.raises(ConfigError, match=r"hold nothing of teachers; make them with"):
        like(model, grown, tmp_path / "b")
    assert not (tmp_path / "a").exists()


def test_damage_is_named(joined: EmbedSettings, grown: Path, tmp_path: Path) -> None:
    path = next(joined.out.glob("*.npy"))
    flip_bit(path, path.stat().st_size - 3)
    with pytest.raises(ArtifactError, match=f"{path.name}: is not as it was written"):
        like(joined.out, grown, tmp_path / "a")
    flip_bit(path, path.stat().st_size - 3)
    (joined.out / "manifest.json").write_text(
        '{"stage": "items embed", "results": {"file": "%s"}}' % path.name  # noqa: UP031
    )
    save_vectors(path, load_vectors(path)[:-1].copy())
    with pytest.raises(VectorError, match=r"vectors of shape \(49, 40\); expected \(50, 40\)"):
        like(joined.out, grown, tmp_path / "b")


def test_another_encoder_than_that_of_then_is_refused(
    joined: EmbedSettings, grown: Path, tmp_path: Path
) -> None:
    def narrower(found: dict) -> None:  # type: ignore[type-arg]
        found["text"]["center"] = found["text"]["center"][:-1]
        found["teachers"][0]["width"] += 1

    manifest = joined.out / "manifest.json"
    edit_json(manifest, lambda found: [found.pop("files"), found.pop("checksum")])
    edit_json(joined.out / BLOCKS_FILE, narrower)
    with pytest.raises(VectorError, match=r"32 numbers a text; expected the 31 of .*joined"):
        like(joined.out, grown, tmp_path / "a")
