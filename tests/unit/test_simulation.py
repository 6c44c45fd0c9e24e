"""The simulation of leases at scale, on a small scale."""

from pathlib import Path

from bench.simulation.model import Simulation
from bench.simulation.page import page
from bench.simulation.population import Population
from bench.simulation.virtual_loop import VirtualLoop


def test_a_small_simulation_serves_its_customers_with_few_lease_calls(tmp_path: Path) -> None:
    population = Population(seed=1, accounts=20, edges=2, requests_per_s=20)
    simulation = Simulation(population, edges=2, requests_per_s=20, with_affinity=True, folder=tmp_path)
    loop = VirtualLoop()
    try:
        loop.run_until_complete(simulation.run(loop, 6))
    finally:
        loop.close()
    assert len(simulation.seconds) == 6
    requests = sum(second.requests for second in simulation.seconds)
    assert requests > 60
    assert 0 < sum(second.lease_calls for second in simulation.seconds) < requests
    assert sum(second.unavailable for second in simulation.seconds) == 0
    text = page({"affinity": simulation.seconds, "no affinity": simulation.seconds}, 2, command="this", commit="test")
    assert "lease calls per request" in text
