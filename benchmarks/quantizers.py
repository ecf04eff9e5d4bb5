"""How good are the quantizers, how fast, and in how much memory?

Three questions:

- An epoch of the RQ-VAE beside one of the same encoder and decoder around ``ResidualVQ`` of
  vector-quantize-pytorch, which learns its codes by moving averages. Both see the same batches,
  start with k-means and bring unused codes back; rounds of one epoch each follow one another.
- Real catalogs: collisions before and after assignment, code use and time.
- A million random vectors of 768 dimensions by residual k-means, from a file that is mapped rather
  than loaded, in a fresh process (Linux only). Memory of its own counts; pages of the file do not,
  since the system takes them back when it needs them.

    python -m benchmarks.quantizers [--epochs 200] [--rounds 60] [--items 1000000]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.report import interleaved, markdown, publish, ratio, shared_data
from torch import Tensor
from torch.nn import functional
from vector_quantize_pytorch import ResidualVQ

from incatalog.artifacts import read_json
from incatalog.codes.assign import REPORT_FILE, assign_items
from incatalog.codes.codebooks import residual_codes
from incatalog.codes.collisions import resolve_collisions
from incatalog.codes.quality import code_use
from incatalog.codes.quantize import quantize_items
from incatalog.codes.quantizer import load_quantizer
from incatalog.codes.rqvae_fit import RqVaeFit
from incatalog.codes.settings import AssignSettings, QuantizeSettings
from incatalog.data.movielens import prepare_movielens
from incatalog.data.settings import MovieLensSettings
from incatalog.data.vectors import load_vectors
from incatalog.embedding.embed import embed_items
from incatalog.embedding.settings import EmbedSettings

CPU = torch.device("cpu")
WIDTH = 768


class Rival(RqVaeFit):
    """The same training around ResidualVQ."""

    def __init__(self, settings: QuantizeSettings, vectors: np.ndarray) -> None:
        super().__init__(settings, vectors, CPU)
        self.residual_vq = ResidualVQ(
            dim=settings.e_dim,
            num_quantizers=len(settings.codebooks),
            codebook_size=settings.codebooks[0],
            kmeans_init=True,
            kmeans_iters=settings.kmeans_iterations,
            commitment_weight=settings.beta,
            threshold_ema_dead_code=2,
        )

    def _step(self, vectors: Tensor) -> tuple[dict[str, float], Tensor, Tensor]:
        quantised, codes, losses = self.residual_vq(self.network.latents(vectors)[None])
        decoded = self.network.decoder(quantised[0])
        loss = functional.mse_loss(decoded, self.network.standardise(vectors)) + losses.mean()
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        self.optimiser.step()
        return {"loss": float(loss.detach())}, codes[0], torch.empty(0)

    def _restart_unused(self, *_: object) -> None:
        """ResidualVQ does that itself."""

    @torch.no_grad()
    def measure(self) -> tuple[float, dict[str, Any]]:
        """Unexplained variance and code use, as for the RQ-VAE."""
        self.network.eval()
        self.residual_vq.eval()
        vectors = torch.from_numpy(np.array(self.vectors))
        books = list(self.residual_vq.codebooks)
        codes = residual_codes(self.network.latents(vectors), books)
        total = sum(book[codes[:, level]] for level, book in enumerate(books))
        decoded = self.network.decoder(total) * self.network.scale + self.network.mean
        error = (vectors - decoded).square().sum() / (vectors - vectors.mean(0)).square().sum()
        use = code_use(codes.numpy().astype(np.int32), self.settings.codebooks)
        self.network.train()
        self.residual_vq.train()
        return float(error), use


def beside_residual_vq(vectors: Path, rounds: int) -> str:
    """Time per epoch, collisions and reconstruction after equal epochs."""
    rows = np.load(vectors)

    def fit(**changes: Any) -> RqVaeFit:
        return RqVaeFit(QuantizeSettings(vectors, Path(), **changes), rows, CPU)

    fits: dict[str, RqVaeFit] = {
        "ResidualVQ": Rival(QuantizeSettings(vectors, Path()), rows),
        "RQ-VAE, nearest codes": fit(sinkhorn_eps=(0.0,) * 4),
        "RQ-VAE, last level balanced": fit(),
    }

    def epoch(name: str) -> None:
        one = fits[name]
        if not one.history and not isinstance(one, Rival):
            one._start_codebooks()
        one.history.append(one._train_epoch())

    seconds = interleaved({name: (lambda name=name: epoch(name)) for name in fits}, rounds)
    table = []
    for name, one in fits.items():
        if isinstance(one, Rival):
            unexplained, use = one.measure()
        else:
            found = one._validate()
            unexplained, use = found["unexplained"], found
        table.append(
            [
                name,
                f"{1000 * statistics.median(seconds[name]):.0f}",
                f"{ratio(seconds, name, 'ResidualVQ'):.2f}",
                f"{use['collision_rate']:.2%}",
                f"{unexplained:.3f}",
                " ".join(f"{one:.0f}" for one in use["perplexity"]),
            ]
        )
    header = (
        "quantizer",
        "epoch, ms",
        "against ResidualVQ",
        "collisions",
        "unexplained",
        "perplexity",
    )
    return f"After {rounds + 1} epochs on office:\n\n" + markdown(header, table)


def real_catalogs(vectors: dict[str, tuple[Path, Path]], folder: Path, epochs: int) -> str:
    """What becomes of the published shape, 4 x 256, on real catalogs."""
    table = []
    for name, (data, file) in vectors.items():
        for method in ("rqvae", "rqkmeans"):
            started = time.perf_counter()
            out = folder / f"{name}-{method}"
            config = QuantizeSettings(file, out, method=method, epochs=epochs)  # type: ignore[arg-type]
            quantize_items(config)
            trained = time.perf_counter()
            ids = AssignSettings(data, folder / f"{out.name}-ids", model=str(out), vectors=file)
            report = read_json(assign_items(ids) / REPORT_FILE)
            assigned = time.perf_counter()
            shares = report["prefixes"]
            table.append(
                [
                    f"{name}, {report['items']:,} items",
                    method,
                    f"{trained - started:.0f}",
                    f"{assigned - trained:.1f}",
                    f"{report['before']['collision_rate']:.2%}",
                    f"{report['after']['collision_rate']:.2%}",
                    f"{report['after']['unexplained']:.3f}",
                    " ".join(f"{one:.0f}" for one in report["after"]["perplexity"]),
                    f"{shares['neighbours'][0]:.0%} / {shares['random'][0]:.1%}",
                ]
            )
    header = (
        "catalog",
        "method",
        "train, s",
        "assign, s",
        "collisions before",
        "after",
        "unexplained",
        "perplexity",
        "first code shared: neighbours / random",
    )
    return f"Published shape, 4 x 256 codes; RQ-VAE of {epochs} epochs:\n\n" + markdown(
        header, table
    )


class Watch(threading.Thread):
    """Highest memory of this process's own, in MB, since it began."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = own_memory()
        self.ended = threading.Event()

    def run(self) -> None:
        """Looks every 20 ms."""
        while not self.ended.wait(0.02):
            self.peak = max(self.peak, own_memory())


def own_memory() -> float:
    """MB that belong to this process alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


def million(folder: str, items: int) -> list[tuple[str, float, float]]:
    """Seconds, and the highest own memory, of each step; run in a process of its own."""
    path = Path(folder) / "random.npy"
    before = own_memory()
    steps: list[tuple[str, float, float]] = []
    state: dict[str, Any] = {}

    def train() -> None:
        config = QuantizeSettings(path, Path(folder) / "run", method="rqkmeans")
        state["run"] = quantize_items(config)

    def assign() -> None:
        state["vectors"] = load_vectors(path)
        state["quantizer"] = load_quantizer(state["run"], "collision", CPU)
        state["codes"] = state["quantizer"].codes(state["vectors"])

    def resolve() -> None:
        def distances(rows: np.ndarray) -> Tensor:
            return state["quantizer"].last_distances(state["vectors"][rows], state["codes"][rows])

        state["resolved"] = resolve_collisions(state["codes"], 256, distances, epsilon=0.003)

    names = ("train on a sample of 65,536", "assign codes", "resolve collisions")
    for name, step in zip(names, (train, assign, resolve), strict=True):
        watch = Watch()
        watch.start()
        started = time.perf_counter()
        step()
        took = time.perf_counter() - started
        watch.ended.set()
        watch.join()
        steps.append((name, took, watch.peak - before))
    assert len(np.unique(state["resolved"].codes, axis=0)) == items
    steps.append(("items moved", len(state["resolved"].moved), 0.0))
    return steps


def write_random(path: Path, items: int) -> None:
    """Random vectors, block by block."""
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(items, WIDTH))
    generator = np.random.default_rng(0)
    for start in range(0, items, 1 << 14):
        block = rows[start : start + (1 << 14)]
        block[:] = generator.standard_normal(block.shape, dtype=np.float32)
    rows.flush()


def bounded_memory(items: int, folder: Path) -> str:
    """The table on a million vectors."""
    path = folder / "random.npy"
    write_random(path, items)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        *steps, (_, moved, _) = pool.apply(million, (str(folder), items))
    table = [[name, f"{took:.1f}", f"{peak:.0f}"] for name, took, peak in steps]
    size = path.stat().st_size / 1e6
    path.unlink()
    return (
        f"Residual k-means of {items:,} random vectors of {WIDTH} dimensions ({size:,.0f} MB), "
        f"4 x 256 codes; {moved:,.0f} items moved, no two share an ID:\n\n"
        + markdown(("step", "seconds", "own memory at most, MB"), table)
    )


def main() -> None:
    """Answers the three questions."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=200, help="epochs on real catalogs")
    parser.add_argument("--rounds", type=int, default=60, help="epochs beside ResidualVQ")
    parser.add_argument("--items", type=int, default=1_000_000, help="random vectors")
    options = parser.parse_args()

    import recbole

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"
        movies = prepare_movielens(MovieLensSettings(source=source, out=folder / "ml-100k"))
        vectors = {}
        for data, wording in ((shared_data() / "office", "td"), (movies, "tc")):
            embed = EmbedSettings(data, folder / f"{data.name}-vectors", wording=wording)  # type: ignore[arg-type]
            vectors[data.name] = data, embed_items(embed)
        body = "\n\n".join(
            [
                beside_residual_vq(vectors["office"][1], options.rounds),
                real_catalogs(vectors, folder, options.epochs),
                bounded_memory(options.items, folder),
            ]
        )
    publish("quantizers", "Quality, time and memory of the quantizers", body)


if __name__ == "__main__":
    main()
