"""Words that decide what a question asks for: numbers, units, dates, opposites, languages.

Tables only, for the modules that compare questions and answers. Most cover English only, since
tables for another language have to be written by somebody who speaks it. For questions in other
languages, numbers and identifiers are still compared, but most other tables match nothing.
"""

from __future__ import annotations

from functools import lru_cache

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()

NUMBER_WORDS: dict[str, float] = {
    **{word: float(value) for value, word in enumerate(_SMALL)},
    **{word: 10.0 * value for value, word in enumerate(TENS, 2)},
    "half": 0.5,
    "dozen": 12.0,
    "hundred": 100.0,
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
}
MAGNITUDES: dict[str, float] = {"hundred": 100.0, "thousand": 1e3, "million": 1e6, "billion": 1e9}
MULTIPLES: dict[str, float] = {"k": 1e3, "bn": 1e9}

ORDINALS: dict[str, float] = {
    word: float(value)
    for value, word in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth".split(), 1
    )
}

MONTHS: dict[str, str] = {
    form: name
    for name in (
        "january february march april may june july august september october november december"
    ).split()
    for form in (name, name[:3])
    if form not in ("may", "mar")  # words in their own right
}
MONTHS |= {"may": "may", "sept": "september"}

WEEKDAYS: dict[str, str] = {
    form: name
    for name in "monday tuesday wednesday thursday friday saturday sunday".split()
    for form in (name, name + "s")
}

_UNITS = (
    "second seconds sec secs|minute minutes min mins|hour hours hr hrs|day days|week weeks|"
    "month months|year years yr yrs|km kilometer kilometers kilometre kilometres|mile miles|"
    "meter meters metre metres|foot feet ft|inch inches|cm centimeter centimeters centimetre "
    "centimetres|kg kilo kilos kilogram kilograms|pound pounds lb lbs|gram grams|ounce ounces "
    "oz|ton tons|liter liters litre litres|gallon gallons|celsius|fahrenheit|kelvin|kb|mb|gb|tb|"
    "dollar dollars usd $|euro euros eur €|gbp £|rupee rupees inr ₹ rs|yen jpy ¥|yuan cny|"
    "franc francs chf|percent % pct|mph|kmh|watt watts|volt volts|calorie calories"
)
UNITS: dict[str, str] = {
    form: group.split()[0] for group in _UNITS.split("|") for form in group.split()
}

NEGATIONS = frozenset(
    (
        "not no never without cannot none nobody nothing neither nor non cant dont doesnt isnt "
        "wont didnt shouldnt couldnt wouldnt arent wasnt havent hasnt"
    ).split()
)

_OPPOSITES = (
    "increase decrease|increase reduce|raise lower|open close|opening closing|enable disable|"
    "buy sell|best worst|cheapest fastest|before after|more less|most least|minimum maximum|"
    "min max|start stop|start end|add remove|gain lose|import export|deposit withdraw|"
    "deposit withdrawal|upgrade downgrade|login logout|install uninstall|subscribe unsubscribe|"
    "block unblock|lock unlock|send receive|lend borrow|win lose|good bad|safe dangerous|"
    "legal illegal|possible impossible|advantages disadvantages|advantage disadvantage|pros cons|"
    "strengths weaknesses|men women|man woman|boys girls|boy girl|male female|old new|"
    "younger older|larger smaller|bigger smaller|longer shorter|highest lowest|largest smallest|"
    "longest shortest|fastest slowest|earliest latest|early late|left right|above below|"
    "inside outside|upper lower|indoor outdoor|domestic international|local global|public private|"
    "personal business|arrive depart|arrival departure|arriving departing|arrives departs|"
    "push pull|rise fall|encrypt decrypt|encode decode|upload download|create delete|show hide|"
    "accept reject|love hate|hot cold|fast slow|strong weak|easy hard|rich poor|always never|"
    "ascending descending|even odd|positive negative|true false|vertical horizontal|north south|"
    "east west|mother father|employee employer|buyer seller|landlord tenant|husband wife|"
    "previous next|last next|past future|beginning end|top bottom|hire fire|cause cure|"
    "causes symptoms|symptoms treatment|income expenses|freeze unfreeze|activate deactivate|"
    "activate cancel|today tomorrow|today yesterday|tomorrow yesterday|monthly yearly|"
    "daily weekly|weekly monthly|credit debit|morning evening|breakfast dinner|breakfast lunch|"
    "lunch dinner|android ios|windows mac|summer winter|entry exit|hardware software|input output|"
    "read write|pause resume|allow forbid|allowed forbidden|include exclude|prepaid postpaid|"
    "refund exchange|outgoing incoming|sent received|expired renewed|over under|over below|"
    "above under|up down|on off|in out|first last|minimum most|cheap expensive|cheapest expensive|"
    "mom dad|mum dad|uncle aunt|brother sister|son daughter|king queen|wife husband|bride groom|"
    "dog cat|paid unpaid|paid free|full empty|full part|whole half|heavier lighter|taller shorter|"
    "higher lower|hotter colder|warmest coldest|hottest coldest|newest oldest|youngest oldest|"
    "nearest farthest|near far|wet dry|thick thin|wide narrow|loud quiet|light dark|clean dirty|"
    "alive dead|born died|birth death|married divorced|won lost|bought sold|opened closed|"
    "opens closes|opened closing|gave took|came left|arrived left|joined left|join leave|"
    "teacher student|doctor patient|parent child|parents children|sender recipient|"
    "borrower lender|server client|guest host|author reader|master slave|singular plural|"
    "inbound outbound|checkin checkout|online offline|manual automatic|temporary permanent|"
    "required optional|mandatory optional|included excluded|same different|agree disagree|"
    "connect disconnect|approve reject|approve deny|grant revoke|hire dismiss|"
    "encourage discourage|appear disappear|expand collapse|zoom shrink|save spend|save discard|"
    "copy cut|undo redo|mute unmute|follow unfollow|pin unpin|archive unarchive|compress extract|"
    "horizontal diagonal|odd prime|front back|spring autumn|spring fall|weekday weekend|"
    "weekdays weekends|day night|noon midnight|day week|week month|month year|week year|day month|"
    "days weeks|weeks months|months years|hours minutes|minutes seconds|hour day|gain loss|"
    "profit loss|inner outer|internal external|incoming outbound|debit deposit|gross net"
)
OPPOSITES: dict[str, frozenset[str]] = {}
for _pair in _OPPOSITES.split("|"):
    _one, _other = _pair.split()
    OPPOSITES[_one] = OPPOSITES.get(_one, frozenset()) | {_other}
    OPPOSITES[_other] = OPPOSITES.get(_other, frozenset()) | {_one}

_NEGATING_PREFIXES = ("un", "in", "im", "ir", "il", "dis", "non", "non-")
_SHORTEST_NEGATED = 4
"""Minimum length of a word that is compared with its negated form."""


@lru_cache(maxsize=4096)
def opposites_of(word: str) -> frozenset[str]:
    """The words that mean the opposite: listed ones, and negated forms ("unsafe" for "safe")."""
    listed = OPPOSITES.get(word, frozenset())
    if len(word) < _SHORTEST_NEGATED:
        return listed
    bare = {word.removeprefix(p) for p in _NEGATING_PREFIXES if word.startswith(p)}
    return listed | {prefix + word for prefix in _NEGATING_PREFIXES} | bare


PERISHABLE = frozenset("now today tonight yesterday tomorrow latest newest".split())
"""Words in a question that make its answer go out of date."""

DIRECTIONS = frozenset("to from into than before after over against versus vs by of under".split())
"""Words around which two names cannot be swapped without changing the question."""

STOPWORDS: dict[str, frozenset[str]] = {
    "en": frozenset("the is are what how does do of to and in for can i my you a with".split()),
    "de": frozenset("der die das ist wie ich und nicht ein eine für mit wo kann mein den".split()),
    "fr": frozenset("le la les est une des que pour dans comment je mon vous où quel et".split()),
    "es": frozenset("el los las es una que para cómo como mi en con por del dónde cuál y".split()),
    "it": frozenset("il lo gli che per sono una con mio del della dove come è di e".split()),
    "pt": frozenset("o os uma que para como meu não com do da onde qual é em e".split()),
    "nl": frozenset("het een van ik hoe wat mijn niet voor met waar kan zijn is op".split()),
}

NAMED_LANGUAGES = frozenset(
    (
        "english french german spanish italian portuguese dutch russian chinese mandarin japanese "
        "korean arabic hindi bengali urdu turkish polish swedish norwegian danish finnish greek "
        "hebrew thai vietnamese latin tamil telugu"
    ).split()
)
PLACES = frozenset(
    (
        "india china japan germany france canada australia brazil mexico italy spain russia usa "
        "uk england scotland ireland wales america europe africa asia pakistan nepal bangladesh "
        "turkey iran iraq israel egypt kenya nigeria ghana poland portugal greece sweden norway "
        "denmark finland netherlands belgium austria switzerland ukraine romania hungary "
        "singapore malaysia indonesia thailand vietnam philippines korea argentina chile peru "
        "colombia cuba texas california florida ohio georgia virginia london paris boston denver "
        "chicago mumbai delhi bangalore hyderabad chennai kolkata pune tokyo berlin madrid "
        "toronto sydney melbourne dallas atlanta seattle pittsburgh philadelphia baltimore "
        "oakland washington houston miami phoenix detroit rome milan barcelona lisbon vienna "
        "zurich geneva munich hamburg amsterdam brussels dublin oslo stockholm copenhagen "
        "helsinki warsaw prague budapest athens istanbul moscow dubai cairo beijing shanghai "
        "seoul bangkok"
    ).split()
)
ALIASES: dict[str, str] = {"usa": "america", "uk": "britain", "postgres": "postgresql"}
"""Other names for the same thing."""
PRODUCTS = frozenset(
    (
        "python java javascript typescript ruby rust golang php kotlin swift c++ c# perl scala "
        "windows linux macos ubuntu android ios iphone ipad macbook chrome firefox safari "
        "facebook instagram twitter whatsapp snapchat youtube linkedin reddit google amazon "
        "microsoft apple netflix tesla mysql postgresql postgres mongodb sqlite redis oracle visa "
        "mastercard paypal bitcoin ethereum excel powerpoint gmail outlook react angular vue "
        "django flask docker kubernetes aws azure gcp numpy pandas tensorflow pytorch pdf csv "
        "json xml html css"
    ).split()
)
KINDS: tuple[tuple[str, frozenset[str]], ...] = (
    ("language", NAMED_LANGUAGES),
    ("place", PLACES),
    ("product", PRODUCTS),
)
"""Names of each kind that are recognized even without capitals."""

BEFORE_I = frozenset(
    (
        "am do did can could should would will shall may must have had was when if how what where "
        "why since that because because, as than and"
    ).split()
)
AFTER_I = frozenset(
    (
        "am was have had need want would will can could should do did don't didn't can't couldn't "
        "cannot won't haven't get got keep forgot lost found think thought bought paid ordered "
        "returned moved live work use used already just never still also like love hate know "
        "don't see saw say said go went ask try tried make made take took feel change cancel pay"
    ).split()
)
"""Words that mark a preceding lower-case "i" as the pronoun (`BEFORE_I`: a following one)."""
SHORT_ACRONYMS = frozenset("us it who aids or in me ok hi pa ma la id al de".split())
"""Words that are an acronym or a US state in capitals, and a different word in lower case."""
CASE_WORDS = frozenset(
    (
        "polish march may turkey china chile reading nice mobile job bath cork lima will mark bill "
        "frank true false none null string"
    ).split()
)
"""Words that mean something else when capitalized."""
SMALL_WORDS = frozenset(
    "i am is it in on at to of or so no do go he me my we us up by be an as if hi ok".split()
)
"""Words of one or two letters that people may capitalize for no reason."""
OWN_LETTERS = "ñöäüßåøæçłışğąęśźżćńý"
"""Letters whose diacritic makes them a different letter, and the word a different word."""

FUNCTION_WORDS = frozenset(
    (
        "a an the this that these those some any my your his her its our their and or nor vs "
        "versus is are was were be been being am do does did can could will would should shall "
        "may might must have has had to of in on at for with from into by as than then so if "
        "whether how what which who whom whose when where why please hi hello hey thanks thank "
        "just really actually there here it about between"
    ).split()
)
"""Words that carry no meaning of their own."""
TELLING = frozenset("tell show give explain remind help let teach".split())
"""Verbs of a request: "tell me how"."""
AUXILIARIES = frozenset(
    (
        "is are was were be do does did can could will would should shall may might must have has "
        "had 's"
    ).split()
)
BEFORE_A_QUESTION = frozenset(
    "hi hello hey please can could you tell me do know just quick question so and ok".split()
)
RELATING = AUXILIARIES | frozenset(
    "that than to on in of for with from into before after if who what which".split()
)
"""Words that relate the other words of a sentence to each other."""
SYMMETRIC = frozenset(
    (
        "friends friend dating married related differ differs difference different similar same "
        "equal compare compared acquaintance distance between"
    ).split()
)
"""Words for relations that hold in both directions."""
_IRREGULAR = (
    "be was were been|beat beaten|become became|begin began begun|bite bit bitten|"
    "break broke broken|bring brought|build built|buy bought|catch caught|choose chose chosen|"
    "come came|cost|cut|deal dealt|do did done|draw drew drawn|drink drank drunk|"
    "drive drove driven|eat ate eaten|fall fell fallen|feed fed|feel felt|fight fought|find found|"
    "fly flew flown|forget forgot forgotten|forgive forgave forgiven|get got gotten|"
    "give gave given|go went gone|grow grew grown|have had|hear heard|hide hid hidden|hit|"
    "hold held|hurt|keep kept|know knew known|lead led|leave left|lend lent|let|lose lost|"
    "make made|marry married|mean meant|meet met|owe|pay paid|put|read|ride rode ridden|"
    "ring rang rung|rise rose risen|run ran|say said|see saw seen|seek sought|sell sold|send sent|"
    "set|shake shook|shoot shot|show shown|sing sang sung|sit sat|sleep slept|speak spoke spoken|"
    "spend spent|stand stood|steal stole stolen|strike struck|swear swore sworn|take took taken|"
    "teach taught|tell told|think thought|throw threw thrown|understand understood|"
    "wake woke woken|wear wore worn|win won|write wrote written|man men|woman women|"
    "child children|person people|company companies|mouse mice|foot feet"
)
IRREGULAR: dict[str, str] = {
    form: group.split()[0] for group in _IRREGULAR.split("|") for form in group.split()
}
"""Irregular forms of verbs and nouns, each with its base form."""
