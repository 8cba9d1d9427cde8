"""What word problems are about: scenarios with their sentences, things and people.

Fields in the sentences: ``{name}`` and ``{He}`` are the person, ``{things}`` what is counted, ``{n}`` and ``{m}`` the
numbers of an event. An event's phrase names it where the problem is worked out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One thing that happens.

    Attributes:
        operation: What it does to the count: ``+``, ``-``, ``*`` or ``/`` with one number, ``+*`` or ``-*`` with the
            product of two.
        sentence: How the problem says it.
        phrase: How a solution names it.
    """

    operation: str
    sentence: str
    phrase: str


@dataclass(frozen=True)
class Scenario:
    """A kind of story.

    Attributes:
        things: What may be counted in it.
        opening: The first sentence with one number, and with two that are multiplied.
        events: What may happen, each once in a story.
        question: The last sentence.
    """

    things: tuple[str, ...]
    opening: tuple[str, str]
    events: tuple[Event, ...]
    question: str


def _events(*rows: str) -> tuple[Event, ...]:
    """Events from rows "operation | sentence | phrase"."""
    return tuple(Event(*(part.strip() for part in row.split("|"))) for row in rows)


PEOPLE = tuple(
    (name, pronoun)
    for pronoun, names in (
        ("He", ("Tom", "Omar", "Ben", "Ivan", "Kofi", "Leo", "Raj", "Sam", "Noah", "Diego")),
        ("She", ("Mia", "Anna", "Lena", "Aisha", "Zoe", "Emma", "Priya", "Nora", "Yuki", "Rosa")),
    )
    for name in names
)
"""Names, each with its pronoun."""

SCENARIOS = {
    "orchard": Scenario(
        ("apples", "pears", "plums", "peaches"),
        ("{name} picks {n} {things}.", "{name} picks {n} baskets of {m} {things} each."),
        _events(
            "+  | {He} finds {n} more in the grass. | Found",
            "-  | {He} gives {n} to a neighbour.    | Given away",
            "+* | An aunt brings {n} bags of {m}.   | The bags",
            "-* | {He} uses {m} for each of {n} pies. | The pies",
            "*  | A second harvest brings the total to {n} times as many. | Second harvest",
            "/  | {He} shares them equally among {n} baskets and keeps one basket. | One basket",
        ),
        "How many {things} does {name} have now?",
    ),
    "marbles": Scenario(
        ("marbles", "stickers", "cards", "coins"),
        ("{name} owns {n} {things}.", "{name} owns {n} boxes with {m} {things} in each."),
        _events(
            "+  | {He} wins {n} in a game. | Won",
            "-  | {He} loses {n} on the way home. | Lost",
            "+* | {He} buys {n} packs of {m}. | The packs",
            "-* | {He} gives {m} to each of {n} friends. | The friends",
            "*  | A cousin's gift makes it {n} times as many. | The gift",
            "/  | {He} keeps only one of {n} equal piles. | One pile",
        ),
        "How many {things} does {name} own in the end?",
    ),
    "bus": Scenario(
        ("passengers", "people", "children"),
        ("A bus leaves the depot with {n} {things}.", "{n} groups of {m} {things} board an empty bus."),
        _events(
            "+  | At the market, {n} get on. | At the market",
            "-  | At the school, {n} get off. | At the school",
            "+* | At the park, {n} families of {m} get on. | At the park",
            "-* | At the station, {n} groups of {m} get off. | At the station",
            "*  | At the stadium the number on board grows to {n} times as many. | At the stadium",
            "/  | At the bridge they spread evenly over {n} buses. | At the bridge",
        ),
        "How many {things} are on the bus now?",
    ),
    "bakery": Scenario(
        ("rolls", "muffins", "cookies", "buns"),
        ("A baker starts the day with {n} {things}.", "A baker starts the day with {n} trays of {m} {things}."),
        _events(
            "+  | The oven gives {n} more. | From the oven",
            "-  | {n} are burnt and thrown out. | Burnt",
            "+* | An assistant bakes {n} trays of {m}. | New trays",
            "-* | {n} customers buy {m} each. | Customers",
            "*  | A big order makes the baker raise the stock to {n} times as many. | Big order",
            "/  | The stock is split equally among {n} shops, and one shop is ours. | Our shop",
        ),
        "How many {things} are left in our shop?",
    ),
    "library": Scenario(
        ("books", "comics", "magazines"),
        ("A library shelf holds {n} {things}.", "A library has {n} shelves with {m} {things} each."),
        _events(
            "+  | Readers return {n}. | Returned",
            "-  | {n} are lent out. | Lent out",
            "+* | A donor sends {n} crates of {m}. | The crates",
            "-* | {n} classes borrow {m} each. | The classes",
            "*  | A merger brings the collection to {n} times its size. | The merger",
            "/  | The collection is divided evenly into {n} rooms, and we look at one. | One room",
        ),
        "How many {things} are there in the end?",
    ),
    "savings": Scenario(
        ("dollars", "euros", "tokens"),
        ("{name} has saved {n} {things}.", "{name} saves {m} {things} a week for {n} weeks."),
        _events(
            "+  | {He} gets {n} as a present. | The present",
            "-  | {He} spends {n} on lunch. | Lunch",
            "+* | {He} works {n} hours for {m} an hour. | Wages",
            "-* | {He} buys {n} tickets for {m} each. | Tickets",
            "*  | A prize makes it {n} times as much. | The prize",
            "/  | {He} splits the money evenly with friends, {n} people in all. | The split",
        ),
        "How many {things} does {name} have left?",
    ),
    "farm": Scenario(
        ("hens", "sheep", "goats", "ducks"),
        ("A farmer keeps {n} {things}.", "A farmer keeps {n} pens of {m} {things}."),
        _events(
            "+  | In spring, {n} are born. | Born",
            "-  | A trader takes {n}. | The trader",
            "+* | {n} trucks arrive with {m} each. | The trucks",
            "-* | {n} neighbours buy {m} each. | The neighbours",
            "*  | Over the years the flock grows to {n} times as many. | Over the years",
            "/  | The flock is divided equally among {n} heirs. | For one heir",
        ),
        "How many {things} are there now?",
    ),
    "classroom": Scenario(
        ("pencils", "crayons", "erasers"),
        ("A classroom has {n} {things}.", "A classroom has {n} tables with {m} {things} each."),
        _events(
            "+  | The teacher adds {n}. | Added",
            "-  | {n} break. | Broken",
            "+* | The school sends {n} sets of {m}. | The sets",
            "-* | {n} pupils take {m} home. | The pupils",
            "*  | A sponsor raises the number to {n} times as many. | The sponsor",
            "/  | They are shared equally among {n} classrooms. | For one classroom",
        ),
        "How many {things} does the classroom have now?",
    ),
    "garden": Scenario(
        ("flowers", "bulbs", "seedlings"),
        ("{name} plants {n} {things}.", "{name} plants {n} rows of {m} {things}."),
        _events(
            "+  | {n} more come up by themselves. | Came up",
            "-  | Snails eat {n}. | Eaten",
            "+* | {He} adds {n} pots of {m}. | The pots",
            "-* | {He} cuts {n} bunches of {m}. | The bunches",
            "*  | By next year there are {n} times as many. | Next year",
            "/  | {He} moves all of them into {n} equal beds and looks at one bed. | One bed",
        ),
        "How many {things} are there?",
    ),
    "reading": Scenario(
        ("pages", "verses"),
        ("{name} has {n} {things} to read.", "{name} has {n} chapters of {m} {things} to read."),
        _events(
            "+  | The teacher sets {n} extra ones. | Extra",
            "-  | {He} reads {n} on Monday. | Monday",
            "+* | A friend recommends {n} stories of {m}. | The stories",
            "-* | {He} reads {m} a day for {n} days. | Daily reading",
            "*  | A new list makes it {n} times as much. | The new list",
            "/  | {He} spreads the rest evenly over {n} evenings. | One evening",
        ),
        "How many {things} is that?",
    ),
    "warehouse": Scenario(
        ("parcels", "crates", "lamps"),
        ("A warehouse stores {n} {things}.", "A warehouse stores {n} stacks of {m} {things}."),
        _events(
            "+  | A van delivers {n}. | The van",
            "-  | {n} are sent away. | Sent away",
            "+* | {n} containers bring {m} each. | The containers",
            "-* | {n} couriers carry off {m} each. | The couriers",
            "*  | Before the holidays the stock rises to {n} times as many. | The holidays",
            "/  | An order spreads the stock evenly over {n} halls. | One hall",
        ),
        "How many {things} does the warehouse hold now?",
    ),
    "aquarium": Scenario(
        ("fish", "shrimps", "snails"),
        ("{name} looks after {n} {things}.", "{name} looks after {n} tanks with {m} {things} each."),
        _events(
            "+  | {n} hatch overnight. | Hatched",
            "-  | A visitor adopts {n}. | Adopted",
            "+* | A shop delivers {n} bowls of {m}. | The bowls",
            "-* | {n} schools receive {m} each. | The schools",
            "*  | After a year the number has become {n} times as large. | After a year",
            "/  | {He} divides them equally between {n} keepers and is one of them. | One keeper",
        ),
        "How many {things} does {name} look after now?",
    ),
}
"""Every scenario by its name."""

HELD_OUT = ("reading", "warehouse", "aquarium")
"""Scenarios that no training problem is about."""
