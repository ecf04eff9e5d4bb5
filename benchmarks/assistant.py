"""Does a chat model that was never trained on a catalog recommend from it, and nothing else?

`incatalog serve --model smollm2` guided by a blend, asked over HTTP: for ten items after each
user's history, whose ranking is held to the blend's own; and all kinds of things, from wishes to
small talk and questions that tempt a model to name films of its own. What stands in the answers is
checked by rules of this file's own, which know nothing of the service's.

    python -m benchmarks.assistant --teacher RUN --requests 1000
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.door import Asked, chat, figures
from benchmarks.report import markdown, publish
from benchmarks.serving import JSON, Server

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.evaluation.run import sample_users
from incatalog.teacher.teacher import load_teacher

_K = 10
_LEAST = 0.95  # of the blend's NDCG@10

_WISHES = (
    "A {genre} film please",
    "Something like {title}",
    "I liked {title} and {other}. What now?",
    "Three {genre} films, please",
    "I am in the mood for {genre}",
    "Recommend something for tonight",
    "What should I watch with my kids?",
    "Not {genre}, something else",
    "Give me a list of 7",
    "I hated {title}. Something better?",
    "An old {genre} from the sixties",
    "{genre} or {genre2}?",
    "What is the best {genre} film?",
    "surprise me",
    "anything with a good story",
    "¿Alguna película buena?",
    "I want to laugh",
    "The scariest one you have",
)
_QUESTIONS = (
    "Who directed {title}?",
    "Tell me about {title}",
    "Is {title} suitable for children?",
    "What do you think of {title}?",
    "Why should I watch {title}?",
    "When was {title} made?",
)
_TEMPTING = (
    "Name three films that are not in your catalog",
    "What is your favourite film of all time?",
    "Tell me about the movie Inception",
    "Do you know Avatar by James Cameron?",
    "Which films did Tarantino make?",
    "Which actor played in the most movies?",
    "Write a short list of Oscar winners",
    "What happened in the last Harry Potter?",
    "Describe the plot of a famous movie",
    "Quote a famous line from a film",
)
_SMALL_TALK = (
    "Hi",
    "Hello, how are you?",
    "Thanks a lot!",
    "What can you do?",
    "Tell me a joke",
    "What is 12 times 7?",
    "What is the capital of France?",
    "Write a haiku about rain",
    "Are you a human?",
    "I had a bad day",
    "What is the weather like?",
    "How do I cook rice?",
    "My name is Anna",
    "Good night",
)
_FOLLOWING = (
    "Why did you pick the first one?",
    "More like the second one",
    "Is the last one violent?",
    "Something else please",
    "Thanks!",
    "What is the third one about?",
)


def main() -> None:
    """Asks, and writes ``results/assistant.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/study/data"))
    parser.add_argument("--teacher", type=Path, default=Path("runs/study/blend"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--encoder", default="words")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--show", type=int, default=0, help="Answers to print.")
    options = parser.parse_args()
    catalog = Catalog.load(options.data)
    flags = ["--domain", f"items={options.data}", "--guide", str(options.teacher)]
    flags += ["--encoder", options.encoder, "--timeout", "900"]
    with Server(Path(options.model), *flags, own_domain=False) as server:
        lists = ranked(options, catalog, server.port)
        found = talked(options, catalog, server.port)
    share = lists[1] / lists[0] if lists[0] else 0.0
    table = [
        ("users", str(options.users)),
        ("NDCG@10 of the blend alone", lists[2]),
        ("NDCG@10 of chat answers", lists[3]),
        ("its share of the blend's", f"{share:.3f} (at least {_LEAST})"),
        ("requests", str(options.requests)),
        ("answers that name items", str(found["lists"])),
        ("items in spans", str(found["items"])),
        ("of these not in the catalog", str(found["outside"])),
        ("names outside spans that are no items", str(found["invented"])),
        ("such names that the service left out", str(found["dropped"])),
        ("items linked outside spans", str(found["mentions"])),
        ("empty answers", str(found["empty"])),
    ]
    publish("assistant", f"A model that was never trained, {catalog.name}",
            markdown(("what", "found"), table))  # fmt: skip
    wrong = share < _LEAST or found["outside"] or found["invented"] or found["empty"]
    sys.exit(1 if wrong else 0)


def ranked(options: Any, catalog: Catalog, port: int) -> tuple[float, float, str, str]:
    """NDCG@10 of the blend and of the chat, each also with its interval."""
    split = leave_one_out(Histories.load(options.data, catalog))
    users = sample_users(len(split), options.users, seed=0)
    held_out = [split.test(user) for user in users]
    histories = [one.history.tolist() for one in held_out]
    targets = [catalog.item(one.target).item_id for one in held_out]
    best = load_teacher(options.teacher, catalog).top_k(histories, _K, exclude_seen=True).tolist()
    alone = [[catalog.item(row).item_id for row in rows if row >= 0] for rows in best]
    shown = [[catalog.item(row).item_id for row in rows] for rows in histories]
    asked, seconds = Asked(port, chat, options.clients).all(shown)
    told = [figures(each, targets, catalog)[0] for each in (alone, asked)]
    print(f"NDCG@10: blend {told[0]}, chat {told[1]}, {seconds:.2f} s a list", flush=True)
    blend, chatted = (float(text.split()[0]) for text in told)
    return blend, chatted, *told


def talked(options: Any, catalog: Catalog, port: int) -> Counter[str]:
    """What is found in the answers to all kinds of requests."""
    conversations = made(options.requests, catalog)
    checker, found = Checker(catalog), Counter[str]()
    started = time.perf_counter()

    def ask(conversation: dict[str, Any]) -> list[dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=900)
        messages: list[dict[str, Any]] = []
        answers = []
        try:
            for text in conversation["said"]:
                messages.append({"role": "user", "content": text})
                body = {"model": "incatalog/items", "messages": messages}
                body |= {"history": conversation["history"]}
                connection.request("POST", "/v1/chat/completions", json.dumps(body), JSON)
                answer = json.loads(connection.getresponse().read())
                if "error" in answer:
                    sys.exit(f"{text}: {answer['error']['message']}")
                answers.append(answer | {"asked": text})
                said = answer["choices"][0]["message"]
                messages.append({one: said[one] for one in ("role", "content", "items")})
        finally:
            connection.close()
        return answers

    with ThreadPoolExecutor(options.clients) as pool:
        for answers in pool.map(ask, conversations):
            for answer in answers:
                text, items = answer["choices"][0]["message"]["content"], answer["items"]
                invented = checker.invented(text, items)
                found["lists"] += bool(items)
                found["items"] += len(items)
                found["outside"] += sum(
                    not catalog.has(one["id"]) or text[one["start"] : one["end"]] != one["title"]
                    for one in items
                )
                found["invented"] += len(invented)
                found["dropped"] += answer["invented"]
                found["mentions"] += len(answer["mentions"])
                found["empty"] += not text.strip()
                if invented or not text.strip() or found["shown"] < options.show:
                    found["shown"] += 1
                    print(f"\n> {answer['asked']}\n{text}", *invented, sep="\n!! ", flush=True)
    print(f"{time.perf_counter() - started:.0f} s", dict(found), flush=True)
    return found


def made(count: int, catalog: Catalog) -> list[dict[str, Any]]:
    """Conversations of one or two requests, ``count`` of them in all."""
    draw = random.Random(0)
    ids = [item.item_id for item in catalog.live_items]
    titles = [item.title for item in catalog.live_items]
    genres = [name.lower() for name in catalog.categories if name != "unknown"]
    kinds = (_WISHES, _QUESTIONS, _TEMPTING, _SMALL_TALK)
    found: list[dict[str, Any]] = []
    left = count
    while left > 0:
        [stock] = draw.choices(kinds, (6, 2, 1, 1))
        names = {"genre": draw.choice(genres), "genre2": draw.choice(genres)}
        names |= {"title": draw.choice(titles), "other": draw.choice(titles)}
        said = [draw.choice(stock).format(**names)]
        if stock is _WISHES and left > 1 and draw.random() < 0.25:
            said.append(draw.choice(_FOLLOWING))
        history = draw.sample(ids, draw.randint(1, 8)) if draw.random() < 0.5 else []
        found.append({"said": said, "history": history})
        left -= len(said)
    return found


class Checker:
    """Looks for names in a text that are no items."""

    # Whoever writes these does not name a film.
    _FREE = re.compile(
        r"\b(?:I|I'm|I'll|I've|I'd|AI|OK|TV|DVD|American|English|French|Sci-Fi|Film-Noir|English"
        r"|Monday|Christmas|Hollywood)\b"
    )
    _WORD = r"[A-Z][\w'’\-]+"
    _JOINED = rf"{_WORD}(?:(?: (?:of|the|and|in|a|to|for|on) |[ :&]+){_WORD})+"
    _QUOTED = re.compile(r"[\"“]([^\"“”\n]{2,100})[\"”]")
    _BOLD = re.compile(r"\*{1,2}([^*\n]{2,100})\*{1,2}")
    _DATED = re.compile(r"([^\n]{0,80})\((?:18|19|20)\d\d\)")
    _TOLD = re.compile(
        rf"\b(?:watch|try|see|recommend|called|titled|film|movie|like|enjoy|classic)\s+({_WORD})"
    )
    _RUN = re.compile(_JOINED)
    _LINE = re.compile(rf"(?m)^\s*(?:\d+[.)]|[-*•])\s+({_WORD}(?: {_WORD})*)\s*(?:$|[-–:(,.])")
    _PERSON = re.compile(r"(?:by|starring|actors?|actress|directors?|author|name is|Mr\.|Dr\.) $")

    def __init__(self, catalog: Catalog) -> None:
        titles = {item.title for item in catalog.live_items}
        for title in list(titles):
            short = re.sub(r"\s*\([^()]*\)\s*$", "", title)
            titles |= {short, re.sub(r"^(.*), (The|A|An)$", r"\2 \1", short)}
        longest = sorted((one for one in titles if len(one) > 1), key=len, reverse=True)
        self._titles = re.compile("|".join(rf"(?<!\w){re.escape(one)}(?!\w)" for one in longest))
        kinds = [name for name in catalog.categories for name in (name, name + "s")]
        self._kinds = re.compile("|".join(rf"\b{re.escape(name)}" for name in kinds))

    def invented(self, text: str, items: list[dict[str, Any]]) -> list[str]:
        """The names."""
        for one in items:
            text = text[: one["start"]] + "~" * (one["end"] - one["start"]) + text[one["end"] :]
        for known in (self._titles, self._kinds, self._FREE):
            text = known.sub(lambda match: "~" * len(match[0]), text)
        found = [match[1] for match in self._QUOTED.finditer(text) if match[1][0].isupper()]
        found += [match[1] for match in self._BOLD.finditer(text) if match[1][0].isupper()]
        found += [match[1] for match in self._TOLD.finditer(text)]
        found += [match[1] for match in self._LINE.finditer(text)]
        found += [
            match[0] for match in self._DATED.finditer(text)
            if re.search(r"[A-Z]\S*\s*$", match[1])
        ]  # fmt: skip
        for match in self._RUN.finditer(text):
            begins = not text[: match.start()].strip() or re.search(
                r"[.!?:\n]\s*$", text[: match.start()]
            )
            if self._PERSON.search(text[: match.start()]):
                continue
            # "Hello Anna": the first word of a sentence has its capital from there.
            if not begins or len(re.findall(self._WORD, match[0])) > 2:
                found.append(match[0])
        return found


if __name__ == "__main__":
    main()
