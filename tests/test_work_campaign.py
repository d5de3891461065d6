"""A short form of the campaign against the work engine; ``make campaign`` runs the long one."""

from pathlib import Path

from work_campaign import run


def test_short_campaign(receptor: Path) -> None:
    counts, problems = run(str(receptor), seed=20, seconds=6, clients=4)
    print(", ".join(f"{n} {what}" for what, n in counts.items()))
    assert not problems, "\n".join(problems)
    assert counts["succeeded"] > 10, f"got {counts}: the campaign did not get under way"
