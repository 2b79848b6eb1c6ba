"""How threads that make an update together wait for each other. To be set before torch is loaded; imports nothing."""

# As they come, they spin for 15 ms or so before they sleep, at the end of each of the hundreds of loops of an update.
# Beside one busy process an update then takes up to a hundred times as long: who spins keeps from its core whom it
# waits for. A thousand turns take some 50 microseconds: they last from one loop to the next and cost little.
ENVIRONMENT = {"GOMP_SPINCOUNT": "1000"}
