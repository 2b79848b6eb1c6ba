"""The networks of the agents: their descriptions, their torch modules, and their parameter and operation counts."""
