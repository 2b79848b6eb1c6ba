"""The 398 tasks of MyoSuite, as envpool runs them: arms, hands and legs that are moved by muscles.

Names are MyoSuite's own without the version: myosuite/myoHandPoseRandom. `Fixed` tasks have one goal, `Random` tasks
draw one at every reset. Most tasks also exist with weaker muscles (`Sarc`, sarcopenia), with fatigue (`Fati`) and, for
hands, with a transferred tendon (`Reaf`): myosuite/myoSarcHandPoseRandom.

Up to version 1.2.5, envpool draws nothing in these tasks but in MyoDM's, whose names begin with MyoHand (its issue
432): every episode begins alike, with the same goal, so that `Random` is no harder than `Fixed`. `caution` says so.
"""

from __future__ import annotations

import re
from importlib.metadata import version

from actors.benchmarks.benchmark import Benchmark, Task, success_rate

# Numbers of the observation, muscles, steps of an episode, and tasks with these sizes.
SIZES = """
9 6 100 myoElbowPose1D6MFixed myoElbowPose1D6MRandom
9 7 100 myoElbowPose1D6MExoFixed myoElbowPose1D6MExoRandom
17 5 100 myoFingerPoseFixed myoFingerPoseRandom
19 5 100 myoFingerReachFixed myoFingerReachRandom
80 34 150 myoArmReachFixed myoArmReachRandom
83 39 50 myoHandPenTwirlFixed myoHandPenTwirlRandom
86 39 200 myoChallengeBaodingP1 myoChallengeBaodingP2
91 39 75 myoHandObjHoldFixed myoHandObjHoldRandom
93 39 200 myoHandKeyTurnFixed myoHandKeyTurnRandom
102 39 150 myoChallengeDieReorientDemo myoChallengeDieReorientP1 myoChallengeDieReorientP2
108 39 100 myoHandPoseFixed myoHandPoseRandom myoHandPose0Fixed myoHandPose1Fixed myoHandPose2Fixed myoHandPose3Fixed
108 39 100 myoHandPose4Fixed myoHandPose5Fixed myoHandPose6Fixed myoHandPose7Fixed myoHandPose8Fixed myoHandPose9Fixed
115 39 100 myoHandReachFixed myoHandReachRandom
155 80 150 myoLegStandRandom
156 63 150 myoChallengeRelocateP1 myoChallengeRelocateP2 myoChallengeRelocateP2eval
200 39 50 myoHandReorient8 myoHandReorient100 myoHandReorientID myoHandReorientOOD
210 80 1000 myoChallengeBimanual
260 54 1000 myoChallengeOslRunFixed
260 54 60000 myoChallengeOslRunRandom
264 210 200 myoTorsoPoseFixed
290 210 200 myoTorsoExoPoseFixed
393 80 2000 myoChallengeChaseTagP1 myoChallengeChaseTagP2 myoChallengeChaseTagP2eval
403 80 1000 myoLegWalk myoLegHillyTerrainWalk myoLegRoughTerrainWalk myoLegStairTerrainWalk
417 275 300 myoChallengeTableTennisP0 myoChallengeTableTennisP1 myoChallengeTableTennisP2
1276 290 2000 myoChallengeSoccerP1 myoChallengeSoccerP2
12 5 200 motorFingerPoseFixed motorFingerPoseRandom
14 5 200 motorFingerReachFixed motorFingerReachRandom
"""
# The objects of MyoDM, which a hand holds still (Fixed, Random), and what else it does with each.
OBJECTS = """
Airplane:Fly,Lift,Pass Alarmclock:Lift,Pass,See Apple:Lift,Pass Banana:Pass Binoculars:Pass Bowl:Drink2,Pass
Camera:Pass Coffeemug Cubelarge:Pass Cubemedium:LInspect Cubesmall:Lift,Pass Cup:Drink,Pass,Pour Cylinderlarge:Inspect
Cylindermedium:Lift,Pass Cylindersmall:Inspect,Pass Duck:Inspect,Lift,Pass Elephant:Lift,Pass Eyeglasses:Pass
Flashlight:Lift,Pass,1On,2On Flute:Pass Gamecontroller:Pass Hammer:Pass,Use Hand:Inspect Headphones:Pass Knife:Chop
Lightbulb:Pass Mouse:Lift,Pass,Use Mug:Drink3,Lift,Pass Phone:Lift Piggybank:Pass,Use Pyramidlarge:Pass
Pyramidmedium:Pass Pyramidsmall:Inspect Scissors:Use Spherelarge:Pass Spheremedium:Inspect,Lift
Spheresmall:Inspect,Lift,Pass Stamp:Lift,Stamp Stanfordbunny:Inspect,Pass Stapler:Lift,Staple1,Staple2 Teapot:Pour2
Toothbrush:Brush1,Lift Toothpaste:Lift,Squeeze1 Toruslarge:Inspect,Lift Torusmedium:Lift,Pass Torussmall:Lift,Pass
Train:Play Watch:Lift,Pass Waterbottle:Lift,Pass,Shake Wineglass:Drink2,Lift,Pass,Toast1
"""
HOLDING, MOVING = (170, 45, 50), (142, 45, 75)  # observation, muscles and steps of MyoDM's tasks
TEN = """
myoHandReachFixed myoHandReachRandom myoHandPoseFixed myoHandPoseRandom myoHandObjHoldFixed myoHandObjHoldRandom
myoHandKeyTurnFixed myoHandKeyTurnRandom myoHandPenTwirlFixed myoHandPenTwirlRandom
"""  # the ten tasks of TD-MPC2 and later agents


def task(name: str, observed: int, muscles: int, limit: int) -> Task:
    return Task(
        name=f"myosuite/{name}",
        observation_keys=(("", observed),),
        action_size=muscles,
        episode_limit=limit,
        library_id=f"{name}-v{int('Baoding' in name)}",
        success_key="solved",
        repeatable=not (name.startswith("MyoHand") and name.endswith("Random")),
    )


def muscle_conditions(name: str) -> list[str]:
    """Return the names of a task with sound and with impaired muscles."""
    if not name.startswith("myo"):  # motorFinger has no muscles
        return [name]
    conditions = ("", "Sarc", "Fati", "Reaf") if name.startswith("myoHand") else ("", "Sarc", "Fati")
    return [f"myo{condition}{name.removeprefix('myo')}" for condition in conditions]


def with_muscles() -> list[Task]:
    """Return the tasks of SIZES, in all conditions of the muscles."""
    made = []
    for line in SIZES.strip().splitlines():
        observed, muscles, limit, *names = line.split()
        sizes = int(observed), int(muscles), int(limit)
        made += [task(each, *sizes) for name in names for each in muscle_conditions(name)]
    return made


def with_objects() -> list[Task]:
    """Return the tasks of MyoDM."""
    made = []
    for word in OBJECTS.split():
        thing, _, verbs = word.partition(":")
        made += [task(f"MyoHand{thing}{verb}", *HOLDING) for verb in ("Fixed", "Random")]
        made += [task(f"MyoHand{thing}{verb}", *MOVING) for verb in verbs.split(",") if verb]
    return made


def caution(task: Task) -> str:
    """Return a sentence if envpool draws no goal for a task that should have one."""
    found = version("envpool")
    numbers = tuple(int(number) for number in re.findall(r"\d+", found)[:3])
    if "Random" not in task.name or task.name in DM or numbers > (1, 2, 5):
        return ""
    return f"envpool {found} draws no goals here: every episode has the same, so they are as easy as Fixed ones"


DM = tuple(made.name for made in with_objects())
BENCHMARK = Benchmark(
    name="myosuite",
    backends=("envpool",),
    tasks={made.name: made for made in (*with_muscles(), *with_objects())},
    suites={"myo-10": tuple(f"myosuite/{name}" for name in TEN.split()), "myo-dm": DM},
    score=success_rate,
    by_success=True,
    caution=caution,
)
