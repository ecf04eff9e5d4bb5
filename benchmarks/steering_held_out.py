"""Requests for office products that were written after the rules of the steering.

The ten kinds of `steering_requests` in other words, and ten other kinds.
"""

from __future__ import annotations

from benchmarks.steering_requests import KINDS, Meant


def _again(kind: str, naming: tuple[str, ...], meaning: tuple[str, ...]) -> Meant:
    return Meant(naming, meaning, KINDS[kind].titles)


HELD_OUT = {
    "ink": _again(
        "ink",
        ("Do you sell ink for printers?", "show me some toner", "cheap colour ink cartridges"),
        ("my inkjet has run dry", "the printer says that cyan is low", "something to refill the "
         "cartridges of my printer with"),
    ),
    "pens": _again(
        "pens",
        ("a nice pen for my father", "red pens", "pack of twelve ballpoint pens"),
        ("I want to sign contracts with style", "for writing letters by hand",
         "it should write smoothly and not smear"),
    ),
    "shredders": _again(
        "shredders",
        ("shredder for a small office", "what shredders do you have?", "cross-cut shredders"),
        ("get rid of private papers safely", "something to turn bank letters into strips",
         "it should destroy CDs and paper"),
    ),
    "labels": _again(
        "labels",
        ("white labels for a laser printer", "please find me some labels", "a roll of labels"),
        ("to address two hundred letters quickly", "so that everyone knows what is in the jar",
         "printable and self-adhesive"),
    ),
    "envelopes": _again(
        "envelopes",
        ("I am looking for brown envelopes", "security envelopes", "50 envelopes, number 10"),
        ("I have to post fifty letters", "to send a book through the post",
         "something for wedding invitations to go in"),
    ),
    "staplers": _again(
        "staplers",
        ("do you have a mini stapler", "red stapler", "staplers, heavy duty"),
        ("to bind a few pages at the corner", "it should fasten a booklet of forty pages",
         "holds papers together with little wires"),
    ),
    "binders": _again(
        "binders",
        ("a two inch binder", "binders in black", "I want a zipper binder"),
        ("somewhere to put my hole-punched notes", "for the papers of a whole school year",
         "with three rings that open"),
    ),
    "calculators": _again(
        "calculators",
        ("graphing calculators", "I need a desktop calculator", "calculator with big buttons"),
        ("for sines and logarithms in class", "to do my accounts without a computer",
         "solar powered, for sums in the shop"),
    ),
    "telephones": _again(
        "telephones",
        ("a cordless phone", "Which phones have large buttons?", "phones with speaker"),
        ("so that I can talk while walking through the house", "to answer calls at the desk",
         "with an answering function and three handsets"),
    ),
    "whiteboards": _again(
        "whiteboards",
        ("whiteboards for the kitchen", "a small dry erase board", "get me a white board"),
        ("to draw diagrams in meetings and wipe them away", "a wall to write on and clean again",
         "for notes that one rubs out with a cloth"),
    ),
    "tape": Meant(
        ("packing tape", "I need tape", "clear tape, please"),
        ("to close parcels", "something sticky and transparent on a roll",
         "to wrap birthday presents with"),
        r"\btapes?\b",
    ),
    "folders": Meant(
        ("folders", "hanging file folders", "a folder with pockets"),
        ("to keep papers in a filing cabinet", "for documents, with tabs, in manila",
         "something to carry loose sheets to school in"),
        r"folders?\b|portfolio",
    ),
    "notebooks": Meant(
        ("a notebook", "spiral notebooks", "I'd like notebooks with lined pages"),
        ("to write my diary in", "a bound book of empty pages", "to take notes in at college"),
        r"notebooks?\b|journals?\b|notepads?\b|\bpads?\b|composition book",
    ),
    "markers": Meant(
        ("permanent markers", "markers", "a black marker for cartons"),
        ("to write on plastic and metal for good", "thick felt tips that do not wash off",
         "something like Sharpie"),
        r"markers?\b|sharpie|highlighters?\b",
    ),
    "calendars": Meant(
        ("a wall calendar", "calendars", "a desk calendar for next year"),
        ("to see all months at a glance", "to note my appointments by day and week",
         "so that I do not forget birthdays"),
        r"calendars?\b|planners?\b",
    ),
    "chairs": Meant(
        ("an office chair", "chairs", "a chair with armrests"),
        ("to sit comfortably all day at work", "my back hurts when I sit at the desk",
         "it should swivel and roll"),
        r"chairs?\b",
    ),
    "erasers": Meant(
        ("erasers", "a pencil eraser", "white erasers"),
        ("to rub out what I wrote in pencil", "for mistakes in drawings",
         "removes graphite without smudging"),
        r"erasers?\b",
    ),
    "sharpeners": Meant(
        ("a pencil sharpener", "electric sharpeners", "I need a sharpener for the classroom"),
        ("my pencils are blunt", "to make pencils pointed again",
         "a machine that points coloured pencils"),
        r"sharpeners?\b",
    ),
    "clips": Meant(
        ("paper clips", "binder clips, please", "a box of clips"),
        ("to hold sheets together without holes", "small bent wires for papers",
         "clamps for thick stacks of paper"),
        r"\bclips?\b",
    ),
    "paper": Meant(
        ("printer paper", "I need paper", "photo paper"),
        ("blank sheets for my copier", "something to print on", "five hundred sheets, letter size"),
        r"\bpaper\b|cardstock",
    ),
}  # fmt: skip
