"""`incatalog publish`: a trained model goes to the Hugging Face hub."""

from __future__ import annotations

import sys

from incatalog.artifacts import atomic_path
from incatalog.checksums import CARD
from incatalog.errors import ConfigError
from incatalog.model.hub import is_repository
from incatalog.publishing.card_tables import card_tables
from incatalog.publishing.parcel import Parcel
from incatalog.publishing.settings import PublishSettings
from incatalog.recommender.model_card import card_text, own_words

_KILO = 1000
_NAMED = 5


def publish(settings: PublishSettings) -> None:
    """Sends the folder of a model as one commit, with a card that says what it is.

    The files are checked first: that they are those that the run wrote, that the weights are
    safetensors, and that somebody else can load them. A card that somebody wrote or changed is sent
    as it is.

    Raises:
        ArtifactError: A file is not as it was written, or an evaluation is not finished.
        BackboneError: The folder is no trained model, or one that others could not load.
        ConfigError: A flag cannot work; a file is a pickle; nobody is logged in.
        DataError: The catalog is damaged, or evaluations do not belong together.
        HubError: The hub refuses, or the connection breaks; then nothing is published.
    """
    folder = settings.model
    _check(settings)
    parcel = Parcel.of(folder)
    card = own_words(folder)
    ours = card is None
    if card is None:
        tables = card_tables(folder, settings.evaluation)
        card = card_text(folder, settings.to, tables, licence=settings.license)
    elif settings.evaluation or settings.license:
        why = f"{folder / CARD} was written by somebody and is sent as it is"
        raise ConfigError(f"--evaluation, --license: {why}; leave them out, or delete that file")
    parcel = parcel.with_card(card)
    if parcel.left:
        named = ", ".join(parcel.left[:_NAMED])
        more = f" and {len(parcel.left) - _NAMED} more" if len(parcel.left) > _NAMED else ""
        sys.stderr.write(f"notice: not of the model, so not sent: {named}{more}\n")
    if settings.dry_run:
        sys.stdout.write(card)
        _tell(parcel, "would be sent")
        return

    from incatalog.publishing.upload import HubTarget

    target = HubTarget(settings.to, settings.revision, settings.private)
    target.check_access()
    done = target.publish(parcel.files, f"Publish {folder.resolve().name}")
    if ours:
        with atomic_path(folder / CARD) as partial:
            partial.write_text(card, encoding="utf-8")
    if done.new:
        _tell(parcel, "sent")
    else:
        sys.stderr.write("nothing sent: the hub has all of it already\n")
    if done.removed:
        sys.stderr.write(f"removed there: {', '.join(done.removed)}\n")
    sys.stderr.write(f"published: {done.address} (commit {done.commit[:12]})\n")


def _check(settings: PublishSettings) -> None:
    """Checks what can be checked by looking at the flags alone."""
    settings.refuse_first([
        (not settings.model.is_dir(), "model",
         "no such folder; expected that of a finished training"),
        (not is_repository(settings.to), "to", "expected the name of a model on the hub, org/name"),
        (settings.license != settings.license.strip().lower() or " " in settings.license, "license",
         "expected an identifier of the hub, such as apache-2.0"),
    ])  # fmt: skip


def _tell(parcel: Parcel, what: str) -> None:
    """Says which files, and how much that is."""
    sizes = parcel.sizes()
    for name in sorted(sizes):
        sys.stderr.write(f"  {name} ({_size(sizes[name])})\n")
    sys.stderr.write(f"{what}: {len(sizes)} files, {_size(sum(sizes.values()))}\n")


def _size(count: float) -> str:
    """A number of bytes, as people read it."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    place = 0
    while count >= _KILO and place < len(units) - 1:
        count, place = count / _KILO, place + 1
    return f"{count:.0f} {units[place]}" if place == 0 else f"{count:.1f} {units[place]}"
