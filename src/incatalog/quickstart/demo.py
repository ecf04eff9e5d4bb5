"""`incatalog demo`: MovieLens-100K, a chat model that was never trained, and its first answers."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from incatalog.artifacts import write_json
from incatalog.data.settings import MovieLensSettings
from incatalog.quickstart.blend_quality import BLEND
from incatalog.quickstart.example_talks import (
    ExampleTalk,
    UserTurn,
    held,
    print_conversation,
    service,
)
from incatalog.quickstart.quickstart import check_port, serve_or_say
from incatalog.quickstart.settings import DemoSettings
from incatalog.quickstart.stages import DATA, SERVICE_FILE, Stages

_DOMAIN = "movies"
# Star Wars, The Empire Strikes Back, Raiders of the Lost Ark; Toy Story, Aladdin, Babe.
_SPACE, _FAMILY = ("50", "172", "174"), ("1", "95", "8")
CONVERSATIONS = (
    ExampleTalk(
        "someone who liked Star Wars, The Empire Strikes Back and Raiders of the Lost Ark",
        (UserTurn("What should I watch tonight?", k=3),),
        _SPACE,
    ),
    ExampleTalk(
        "someone who liked Toy Story, Aladdin and Babe",
        (UserTurn("Something funny for the whole family, please.", k=3),),
        _FAMILY,
    ),
    ExampleTalk(
        "someone of whom nothing is known",
        (UserTurn("I loved Alien (1979) and Blade Runner (1982). What is next?", k=3),),
    ),
)


def run_demo(settings: DemoSettings) -> Path:
    """Prepares MovieLens-100K, fits a blend, compares it, and holds three conversations.

    The conversations are asked of a service with a chat model that was never trained on the
    catalog: what it names is chosen by the blend. A finished stage is kept when the command is
    repeated.

    Returns:
        The path of ``serve.yaml``, with which the service starts again.

    Raises:
        DataError: MovieLens-100K is not there; names the package that ships it.
        BackboneError: The chat model is missing, or cannot chat.
        ConfigError: The port is taken.
    """
    from incatalog.data.movielens import prepare_movielens, recbole_movielens
    from incatalog.quickstart.chat_model import local_model

    console, out = Console(), settings.out
    stages = Stages(out, 4, console)
    if settings.serve:
        check_port(settings.port)
    source = Path(settings.source) if settings.source else recbole_movielens()
    model = local_model(settings.model)
    stages.begin("MovieLens-100K: ratings to catalog and histories")
    files = {"ratings": source / "ml-100k.inter", "movies": source / "ml-100k.item"}
    prepare = MovieLensSettings(source=source, out=out / DATA)
    if all(file.is_file() for file in files.values()) and stages.kept(DATA, prepare, files):
        stages.say(f"{out / DATA} is prepared already")
    else:
        prepare_movielens(prepare)
    stages.begin("A blend of recommenders, fitted and compared with popularity")
    quality = stages.fit(settings.minutes, settings.seed)
    console.print(quality.table())
    stages.say(quality.sentence())
    path = stages.describe_service(_DOMAIN, model, settings.port)
    stages.begin(f"Three conversations with {settings.model}, which was never trained on movies")
    kept = []
    with service(path) as address:
        for conversation in CONVERSATIONS:
            answers = held(address, f"incatalog/{_DOMAIN}", conversation)
            print_conversation(console, conversation, answers)
            kept.append({"about": conversation.about, "answers": answers})
    write_json(out / "conversations.json", kept)
    stages.begin("Talk to it")
    stages.say(f"written to {out}: {DATA}, {BLEND}, {SERVICE_FILE}")
    serve_or_say(stages, path, settings.port, serving=settings.serve)
    return path
