"""What the report shows of chance and of samples held out."""

from __future__ import annotations

from dataclasses import dataclass

from ccx.evidence import Chance, HeldOut
from ccx.results import Explanation, Explanations


@dataclass(frozen=True, slots=True)
class ChanceView:
    """A score beside its null, on one scale in percent: where the null's mean and maximum and the score lie."""

    chance: Chance
    mean: float
    maximum: float
    score: float


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """What is known of an explanation beside its score."""

    chance: ChanceView | None
    held_out: HeldOut | None
    held_out_chance: ChanceView | None


def evidence_view(item: Explanation) -> EvidenceView | None:
    """Return what there is to show of an explanation; None where there is nothing."""
    if item.chance is None and item.held_out is None:
        return None
    held_out = item.held_out
    return EvidenceView(
        chance=None if item.chance is None else _on_a_scale(item.score, item.chance),
        held_out=held_out,
        held_out_chance=(
            None if held_out is None or held_out.chance is None else _on_a_scale(held_out.score, held_out.chance)
        ),
    )


def _on_a_scale(score: float, chance: Chance) -> ChanceView:
    ends = (score, chance.mean, chance.maximum, 0.0)
    lowest, highest = min(ends), max(ends)
    width = (highest - lowest) or 1.0
    mean, maximum, at = (100 * (value - lowest) / width for value in (chance.mean, chance.maximum, score))
    return ChanceView(chance, mean, maximum, at)


def evidence_facts(found: Explanations) -> list[tuple[str, str]]:
    """Return how chance was measured and samples were split, as label and value."""
    settings = found.settings
    facts = []
    if settings.get("permutations"):
        within = f" within {settings['groups']} groups" if settings.get("groups") else ""
        n, seed = settings["permutations"], settings["seed"]
        words = f"{n} permutations of the samples{within}, seed {seed}: no p is below {1 / (1 + n):.3g}"
        facts.append(("chance", words))
    if settings.get("fit_samples") is not None:
        facts.append(
            (
                "held out",
                f"found on {len(settings['fit_samples']):,} samples, scored on {len(settings['test_samples']):,} more",
            )
        )
    return facts
