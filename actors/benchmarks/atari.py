"""The Arcade Learning Environment's 57 games: stacks of grey frames, and actions by their index.

All games have the joystick's 18 actions, so that one agent can play them together. The settings of a run hold for all
its games (cluster.config.schema.AtariConfig). Scores are normalised by the scores of a random player and a human.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.benchmarks.benchmark import Benchmark, Task

FULL_ACTIONS = 18
FRAMES_OF_AN_EPISODE = 108_000  # half an hour

# Game: (score of a random player, score of a human), the table that most papers since arXiv 1511.06581 normalise by.
HUMAN = {
    "alien": (227.8, 7127.7),
    "amidar": (5.8, 1719.5),
    "assault": (222.4, 742.0),
    "asterix": (210.0, 8503.3),
    "asteroids": (719.1, 47388.7),
    "atlantis": (12850.0, 29028.1),
    "bank_heist": (14.2, 753.1),
    "battle_zone": (2360.0, 37187.5),
    "beam_rider": (363.9, 16926.5),
    "berzerk": (123.7, 2630.4),
    "bowling": (23.1, 160.7),
    "boxing": (0.1, 12.1),
    "breakout": (1.7, 30.5),
    "centipede": (2090.9, 12017.0),
    "chopper_command": (811.0, 7387.8),
    "crazy_climber": (10780.5, 35829.4),
    "defender": (2874.5, 18688.9),
    "demon_attack": (152.1, 1971.0),
    "double_dunk": (-18.6, -16.4),
    "enduro": (0.0, 860.5),
    "fishing_derby": (-91.7, -38.7),
    "freeway": (0.0, 29.6),
    "frostbite": (65.2, 4334.7),
    "gopher": (257.6, 2412.5),
    "gravitar": (173.0, 3351.4),
    "hero": (1027.0, 30826.4),
    "ice_hockey": (-11.2, 0.9),
    "jamesbond": (29.0, 302.8),
    "kangaroo": (52.0, 3035.0),
    "krull": (1598.0, 2665.5),
    "kung_fu_master": (258.5, 22736.3),
    "montezuma_revenge": (0.0, 4753.3),
    "ms_pacman": (307.3, 6951.6),
    "name_this_game": (2292.3, 8049.0),
    "phoenix": (761.4, 7242.6),
    "pitfall": (-229.4, 6463.7),
    "pong": (-20.7, 14.6),
    "private_eye": (24.9, 69571.3),
    "qbert": (163.9, 13455.0),
    "riverraid": (1338.5, 17118.0),
    "road_runner": (11.5, 7845.0),
    "robotank": (2.2, 11.9),
    "seaquest": (68.4, 42054.7),
    "skiing": (-17098.1, -4336.9),
    "solaris": (1236.3, 12326.7),
    "space_invaders": (148.0, 1668.7),
    "star_gunner": (664.0, 10250.0),
    "surround": (-10.0, 6.5),
    "tennis": (-23.8, -8.3),
    "time_pilot": (3568.0, 5229.2),
    "tutankham": (11.4, 167.6),
    "up_n_down": (533.4, 11693.2),
    "venture": (0.0, 1187.5),
    "video_pinball": (16256.9, 17667.9),
    "wizard_of_wor": (563.5, 4756.5),
    "yars_revenge": (3092.9, 54576.9),
    "zaxxon": (32.5, 9173.3),
}
# The games of the Atari 100k benchmark (arXiv 1903.00374).
GAMES_26 = """
alien amidar assault asterix bank_heist battle_zone boxing breakout chopper_command crazy_climber demon_attack freeway
frostbite gopher hero jamesbond kangaroo krull kung_fu_master ms_pacman pong private_eye qbert road_runner seaquest
up_n_down
"""


USUAL: dict[str, Any] = {
    "frame_skip": 4,
    "stack": 4,
    "size": 84,
    "sticky": 0.25,
    "one_life": False,
    "full_actions": True,
    "noop_max": 30,
}


def task(game: str) -> Task:
    """Make the task of a game, with the usual settings: bank_heist -> atari/bank-heist. `configured` changes them."""
    title = "".join(word.capitalize() for word in game.split("_"))
    made = Task(
        name=f"atari/{game.replace('_', '-')}",
        observation_keys=(),
        action_size=1,
        episode_limit=0,
        library_id=f"{title}-v5",
        num_actions=18,
    )
    return configured(made, **USUAL)


def configured(
    made: Task,
    frame_skip: int,
    stack: int,
    size: int,
    sticky: float,
    one_life: bool,
    full_actions: bool,
    noop_max: int,
) -> Task:
    """Return the same game with these settings, which are the fields of cluster.config.schema.AtariConfig."""
    options = {
        "frame_skip": frame_skip,
        "stack_num": stack,
        "img_height": size,
        "img_width": size,
        "repeat_action_probability": sticky,
        "episodic_life": one_life,
        "full_action_space": full_actions,
        "noop_max": noop_max,
        "use_fire_reset": True,
        "reward_clip": False,
    }
    return replace(
        made,
        observation_keys=(("", stack * size * size),),
        episode_limit=FRAMES_OF_AN_EPISODE // frame_skip,
        num_actions=FULL_ACTIONS if full_actions else legal_actions(made),
        image=(stack, size, size),
        options=tuple(options.items()),
    )


def game(made: Task) -> str:
    """Return ale-py's name of a game: atari/bank-heist -> bank_heist."""
    return made.short_name.replace("-", "_")


def legal_actions(made: Task) -> int:
    """Return how many of the joystick's actions have a meaning in a game."""
    import ale_py
    from ale_py import roms

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    path = roms.get_rom_path(game(made))
    assert path is not None  # all 57 come with the package
    interface = ale_py.ALEInterface()
    interface.loadROM(path)
    return len(interface.getMinimalActionSet())


def human_normalized(made: Task, score: float) -> float:
    """Return the normalised score: 0 is a random player's score, 1 a human's."""
    random, human = HUMAN[game(made)]
    return (score - random) / (human - random)


TASKS = {made.name: made for made in map(task, HUMAN)}
SUITES = {
    "atari-26": tuple(f"atari/{name.replace('_', '-')}" for name in GAMES_26.split()),
    "atari-57": tuple(TASKS),
}
BENCHMARK = Benchmark(
    name="atari",
    backends=("envpool", "ale-py"),
    tasks=TASKS,
    suites=SUITES,
    score=lambda task, episode_return, success: human_normalized(task, episode_return),
)
