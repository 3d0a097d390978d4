"""What toolworld's functions are about; the held-out topics appear in no training or pretraining text."""

from __future__ import annotations

TOPICS = (
    "rank debt height weight price rating budget salary speed depth length width area volume score level balance "
    "income profit loss tax fee cost rent stock quota demand supply capacity output power voltage energy pressure "
    "temperature humidity altitude latitude longitude population density mileage distance duration delay "
    "frequency bandwidth latency storage memory battery age grade bonus discount deposit premium pension dividend "
    "revenue margin asset liability invoice refund donation grant fund loan interest mortgage allowance penalty fine "
    "toll fare subsidy royalty commission equity reserve turnout attendance enrolment membership staff crew "
    "headcount "
    "birthrate lifespan seniority tenure waist circumference diameter perimeter slope elevation tonnage payload "
    "draught "
    "ballast horsepower throttle friction drag lift thrust inertia momentum velocity acceleration current charge "
    "resistance impedance wattage gain noise signal range coverage resolution contrast hue saturation opacity "
    "exposure "
    "aperture focus zoom tempo pitch pulse cadence rhythm dosage calories protein sugar salt fibre alcohol caffeine "
    "vitamin rainfall snowfall sunshine windspeed visibility pollen ozone salinity hardness porosity viscosity "
    "toxicity "
    "purity flux luminosity parallax redshift magnitude gravity orbit period vintage milestone backlog throughput "
    "uptime downtime workload traffic turnstile inventory shipment surcharge deductible stake handicap odds streak"
).split()
"""Topics of training, and of the splits that test something else."""

HELD_OUT_TOPICS = (
    "turnover wage mass torque tariff yield thickness radius intake fuel ranking credit surplus shortage footprint "
    "fatigue brightness loudness moisture acidity"
).split()
"""Topics of the `tools` split only."""

RELATIONS = (
    "owner manager founder rival partner supplier parent neighbour mentor sponsor captain director editor host "
    "keeper "
    "leader lender patron pilot trainer"
).split()
"""One entity to another, for chained calls."""

HELD_OUT_RELATIONS = "tutor landlord guardian successor".split()

KINDS = (
    "company city ship river player school planet castle bridge museum farm hotel island lake library mine moon "
    "plant road shop singer star station team tower town train tree vessel writer"
).split()
"""What an entity is; also the names of tables."""

HELD_OUT_KINDS = "harbour orchestra volcano village".split()

PARAMETERS = (
    "name key id title entity item label target subject code_name object word term node member unit element"
).split()
"""Names of a function's one string parameter."""

HELD_OUT_PARAMETERS = "handle ref alias record".split()

VERBS = "get read lookup fetch find load query check show tell view give seek".split()
HELD_OUT_VERBS = "obtain pull scan grab".split()

ERRORS = ("service is down", "server is down", "server failed", "no answer", "out of time", "not found", "try later")
"""What a function that fails says."""

HELD_OUT_ERRORS = ("host unreachable", "closed for repair", "gateway broken")

BACKUPS = "backup mirror archive copy".split()
"""What a second function for the same topic is called in its description."""

HELD_OUT_BACKUPS = "replica spare".split()
HELD_OUT = frozenset(
    (
        *HELD_OUT_TOPICS,
        *HELD_OUT_RELATIONS,
        *HELD_OUT_KINDS,
        *HELD_OUT_PARAMETERS,
        *HELD_OUT_VERBS,
        *HELD_OUT_BACKUPS,
    )
)
"""Every word that pretraining and training never show; the held-out errors are whole phrases, and not among them."""

WORDS = (
    "time year way day man thing woman life child world school state family student group country problem hand part "
    "place case week system program question work night point home water room mother area money story fact month lot "
    "right study book eye job word business issue side kind head house service friend father hour game line end "
    "member "
    "law car city name team minute idea body back parent face others level office door health person art war history "
    "party result change morning reason research girl guy moment air teacher force education error server down "
    "failed "
    "retry backup mirror archive copy second first other same different answer call tool next use need want "
    "know tell "
    "find give show have get make can could would should will may must not and or but if when then because with "
    "without from into over under after before between about again very more most less least all both each few many "
    "some any none no yes the this that these those there here where what which who how why is are was were be been"
).split()
"""Common words, for sentences that say nothing."""

NOUNS = (
    "apple arch arm army autumn baby band bank bath bay beach bean bed bee beef bell belt bench bill bird blade "
    "blood board boat body boot bottle brain branch brass brick brush bucket butter button cable cage cake camera "
    "candle card cat chair cheese church circle cloth cloud coal coat coin collar comb cook cord cork corn cotton "
    "cow cream crown cup curtain desk dirt dog door drain drawer dress drink drop dust earth engine eye fact "
    "farmer feather fence flame floor food foot fork forest frame fruit garden gate girl glass glove grass guide "
    "gun hair hammer hand head hill hole hook horn horse hour idea ink jewel juice kick knee knife lace lamp law "
    "lead leaf leg light lip list lunch mark match meal meat metal money month nail neck need needle nerve news "
    "night nose note number nut oil orange oven paint part paste pen pencil plane plate play pocket point potato "
    "print prison push rail rain rat rest ring roof room rope rule sand school science seat seed self sense shelf "
    "shirt shoe side silk sister skin skirt sky sleep smile snake snow soap sock song soul sound space spade "
    "sponge spoon spot spring square stage steam stem step stick stitch stocking stomach stretch sun talk taste "
    "test thread thumb thunder tin toe tongue tooth trade trick trouble turn twist umbrella use view voice walk "
    "wall war wash waste watch water wave wax weather week wheel whip whistle wind wine wire wood wool worm wound "
    "yard"
).split()
"""Everyday nouns: besides nonsense, what a description or a request can be about."""
