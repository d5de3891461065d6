"""A short form of the campaign against the work engine; ``make campaign`` runs the long one."""

from pathlib import Path

from work_campaign import HARM, run


def test_short_campaign(receptor: Path) -> None:
    counts, problems = run(str(receptor), seed=20, seconds=6, clients=4, units=30)
    print(", ".join(f"{n} {what}" for what, n in counts.items()))
    assert not problems, "\n".join(problems)
    assert counts.get("succeeded"), f"got {counts}: no unit survived"
    assert set(counts) >= HARM, f"got {counts}: want each kind of harm"
