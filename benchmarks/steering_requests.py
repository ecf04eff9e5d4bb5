"""What people ask for, by what they mean: films by genre, office products by kind.

Five of ten phrasings name what they mean, five do not. A kind of product is the items whose titles
say it.
"""

from __future__ import annotations

from typing import NamedTuple


class Meant(NamedTuple):
    """Ways to ask for one kind of items."""

    naming: tuple[str, ...]
    meaning: tuple[str, ...]
    titles: str = ""  # a regular expression of the titles meant, where no category says it
    named: str = ""  # the same of what is named, where that is less: no pens for a whiteboard


GENRES = {
    "Action": Meant(
        ("an action film", "Recommend a good action movie", "I want action", "some action, please",
         "five action films for tonight"),
        ("something with car chases and explosions", "a film full of fights and shooting",
         "a tough hero against an army of villains", "fast and loud, with lots of stunts",
         "martial arts and gunfights"),
    ),
    "Adventure": Meant(
        ("an adventure film", "Can you suggest an adventure?", "adventures from all over the world",
         "I feel like an adventure movie", "an old adventure film"),
        ("a treasure hunt in the jungle", "a dangerous journey to an unknown island",
         "explorers looking for a lost city", "pirates and sailing ships",
         "a quest through distant lands"),
    ),
    "Animation": Meant(
        ("an animation film", "a cartoon", "animated movies", "What good animation do you have?",
         "cartoons for tonight"),
        ("drawn by hand, with talking animals", "something by Disney that is all drawings",
         "a film made on computers like those of Pixar", "clay figures that come to life",
         "a movie with puppets and drawn characters"),
    ),
    "Children's": Meant(
        ("a children's film", "films for children", "something for the kids",
         "What can my children watch?", "a movie for kids of six"),
        ("a film for my small daughter", "something the whole family with a toddler can see",
         "a story for little boys and girls", "my six year old wants to see a movie",
         "a funny dog or a talking pig, for the youngest"),
    ),
    "Comedy": Meant(
        ("a comedy", "Recommend some comedies", "a good comedy for two", "I'd like a comedy",
         "comedies, please"),
        ("something to laugh about", "I want to laugh tonight", "a funny film",
         "a silly movie full of jokes", "something hilarious with a lot of slapstick"),
    ),
    "Crime": Meant(
        ("a crime film", "crime movies", "Which crime films do you know?", "a good crime story",
         "I like crime"),
        ("gangsters and the mafia", "a bank robbery that goes wrong",
         "police detectives hunting a murderer", "a film about drug dealers and the mob",
         "a heist by clever thieves"),
    ),
    "Documentary": Meant(
        ("a documentary", "documentaries, please", "Can you recommend a documentary?",
         "an interesting documentary", "I want to see a documentary tonight"),
        ("a true story told with interviews and archive footage", "real life, no actors",
         "a film about the lives of real musicians", "something factual that teaches me history",
         "non-fiction about real people"),
    ),
    "Drama": Meant(
        ("a drama", "Recommend a drama", "a moving drama", "dramas, please", "I'd like a drama"),
        ("a serious film about a family that falls apart", "a story that makes me cry",
         "people who struggle with illness and loss", "a touching portrait of a difficult life",
         "something deep and tragic about human relationships"),
    ),
    "Fantasy": Meant(
        ("a fantasy film", "fantasy, please", "Do you have fantasy movies?", "some fantasy",
         "a fantasy story"),
        ("wizards, magic and dragons", "a fairy tale with a magic kingdom",
         "a boy who enters an enchanted world", "unicorns, elves and spells",
         "a genie or a witch who grants wishes"),
    ),
    "Film-Noir": Meant(
        ("film noir", "a film-noir", "Recommend a classic film noir", "noir, please",
         "a noir movie"),
        ("a private eye and a femme fatale in the shadows", "a black and white detective story of "
         "the forties", "a cynical detective in a dark city at night",
         "a doomed man and a dangerous woman, black and white",
         "hard-boiled mystery with Humphrey Bogart"),
    ),
    "Horror": Meant(
        ("a horror film", "horror, please", "What horror movies do you have?",
         "I am in the mood for horror", "good horror films"),
        ("something scary", "a film that gives me nightmares", "vampires and werewolves",
         "zombies and a haunted house", "a slasher with a masked killer"),
    ),
    "Musical": Meant(
        ("a musical", "musicals", "Recommend a musical", "a good old musical",
         "I want to see a musical"),
        ("people who sing and dance", "a film full of songs", "Broadway songs and tap dancing",
         "something with singing and dancing for my grandmother",
         "a movie where everyone bursts into song"),
    ),
    "Mystery": Meant(
        ("a mystery", "mystery films", "Do you know a good mystery?", "mysteries, please",
         "I like mystery movies"),
        ("a whodunit", "a puzzle that is only solved at the end",
         "a detective who looks for the truth about a strange death",
         "suspense in the style of Hitchcock", "a secret that slowly comes to light"),
    ),
    "Romance": Meant(
        ("a romance", "romantic films", "something romantic", "Recommend a romance",
         "a romance for tonight"),
        ("a film about falling in love", "two people who find each other in the end",
         "something for a date with my girlfriend", "a wedding and a first kiss",
         "a tender film for Valentine's Day"),
    ),
    "Sci-Fi": Meant(
        ("a sci-fi film", "science fiction", "Which science fiction films are good?", "sci fi",
         "I love science fiction"),
        ("in space", "aliens and spaceships", "robots and the future of mankind",
         "time travel", "a war between planets"),
    ),
    "Thriller": Meant(
        ("a thriller", "thrillers, please", "Recommend a thriller", "an exciting thriller",
         "I'd like to see a good thriller"),
        ("something that keeps me on the edge of my seat", "a killer who plays with his victims",
         "a tense hunt against the clock", "a conspiracy and a man on the run",
         "nail-biting suspense"),
    ),
    "War": Meant(
        ("a war film", "war movies", "Can you recommend a war film?", "films about war",
         "a film about the war"),
        ("soldiers at the front", "Vietnam and what it did to the men who fought there",
         "the landing in Normandy", "an army in battle", "the Nazis and the resistance in 1944"),
    ),
    "Western": Meant(
        ("a western", "westerns, please", "Recommend a good western", "an old western",
         "a western with my father"),
        ("cowboys", "gunslingers in a dusty town", "a sheriff and outlaws on horses",
         "the Wild West", "ranchers and Indians on the prairie"),
    ),
}  # fmt: skip

KINDS = {
    "ink": Meant(
        ("ink cartridges", "I need ink", "a new ink cartridge", "black ink, please",
         "Which ink do you have?"),
        ("my printer is empty", "refills for my inkjet", "something so that I can print in colour "
         "again", "my printer prints only faint pages", "supplies for an HP Officejet"),
        # A pen has its ink in the title; what fills one is ink.
        r"^(?!.*(?:\bpens?\b|pencil|marker|ball ?point|roller ?ball|highlighter|\bnibs?\b))"
        r".*(?:\bink\b|toner)|ink (?:cartridge|refill|bottle)|(?:bottled|refill|pen) ink\b",
    ),
    "pens": Meant(
        ("pens", "I need a pen", "ballpoint pens, please", "good gel pens", "a box of pens"),
        ("something to write with", "a smooth writing instrument with blue gel",
         "ballpoints for my students", "to take notes by hand", "fine rollerballs for signing"),
        r"\bpens?\b|ballpoint|rollerball",
    ),
    "shredders": Meant(
        ("a shredder", "paper shredders", "Recommend a shredder", "a quiet shredder",
         "I am looking for a shredder"),
        ("I want to destroy confidential documents", "something that cuts old letters to pieces",
         "a cross-cut machine for bank statements", "so that nobody reads my waste paper",
         "a machine that makes confetti of credit cards"),
        r"shredder",
    ),
    "labels": Meant(
        ("labels", "address labels", "sticky labels for boxes", "I need labels",
         "Which labels fit my printer?"),
        ("self-adhesive address stickers for letters", "to mark my moving boxes with names",
         "stickers to print addresses on", "name tags that stick", "to put names on file folders"),
        r"\blabels?\b|label maker|labeling",
    ),
    "envelopes": Meant(
        ("envelopes", "white envelopes", "I need envelopes", "large envelopes, please",
         "envelopes with a window"),
        ("to put letters in", "padded mailers for shipping", "to send invitations by mail",
         "something to mail documents in", "bubble mailers"),
        r"envelope|mailer",
    ),
    "staplers": Meant(
        ("a stapler", "staplers", "an electric stapler", "I need a new stapler",
         "staplers for the office"),
        ("to join sheets at the corner with metal", "a heavy duty machine for staples",
         "something that fastens twenty pages together", "Swingline for the desk",
         "to tack pages together"),
        r"stapler|staples\b", r"stapler",
    ),
    "binders": Meant(
        ("binders", "a ring binder", "three ring binders", "white binders, please",
         "I need a binder for school"),
        ("to keep punched pages in rings", "3-ring with a clear view cover",
         "to collect my course papers in", "D-ring, two inches, for reports",
         "a presentation cover with rings"),
        r"\bbinders?\b",
    ),
    "calculators": Meant(
        ("a calculator", "calculators", "a calculator for school", "Which calculator is good?",
         "a scientific calculator"),
        ("to add up numbers", "for my maths exam, with graphs", "something from Texas Instruments",
         "to compute taxes on my desk", "it should do sums and print the tape"),
        r"calculator",
    ),
    "telephones": Meant(
        ("a telephone", "cordless telephones", "a phone for the office", "I need a new phone",
         "a phone with an answering machine"),
        ("to call my customers", "cordless handset with caller ID", "a handset for my grandmother",
         "answering system with two handsets", "speakerphone for conference calls"),
        r"\b(?:tele)?phones?\b|handset",
    ),
    "whiteboards": Meant(
        ("a whiteboard", "dry erase boards", "I need a whiteboard", "a magnetic whiteboard",
         "a board to write on"),
        ("to write plans on the wall and wipe them off", "dry erase markers",
         "for brainstorming with my team on the wall", "a magnetic surface for notes",
         "an eraser and colours for the board"),
        r"dry.?erase|white ?board|\bboards?\b|expo\b",
        # Markers may come with a board.
        r"^(?!(?:(?!includes|with).)*\b(?:markers?|erasers?|cleaner)\b)"
        r".*(?:dry.?erase|white ?board|\bboards?\b)",
    ),
}  # fmt: skip
