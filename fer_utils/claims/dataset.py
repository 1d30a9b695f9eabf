"""Claims about the dataset, judged by the dataset notebook's counts (chapter 3.1 and the beginning of 5)."""

import math

from fer_utils.claims.checks import NO, OPEN, YES, Check, check, fact, judges
from fer_utils.constants import CLASSES, IMAGE_SIZE, USAGES


def counted(function):
    """Make a claim's function of one check: it takes the claim and the counts of all and of the test images."""

    @check
    def one(e, claim):
        return function(claim, e.counts(), e.counts(USAGES[1:]))

    def judge(e, claim):
        return [one(e, claim)]

    judge.__doc__ = function.__doc__
    return judge


@judges("D01")
@counted
def total(claim, every, test):
    """The number of images is the stated one."""
    ours, stated = sum(every.values()), claim.stated["total"]
    return fact(
        ours == stated,
        f"{ours:,}",
        f"{ours:,} images against {stated:,}: {ours - stated:+,}",
        difference=abs(ours - stated) / stated,
    )


@judges("D02")
@counted
def table_3_1(claim, every, test):
    """Each class has as many images as Table 3.1 says."""
    stated = claim.stated["counts"]
    off = {name: every[name] - stated[name] for name in CLASSES if every[name] != stated[name]}
    return fact(
        not off,
        ", ".join(f"{name} {every[name]:,}" for name in CLASSES),
        f"{len(off)} of {len(CLASSES)} classes differ: " + ", ".join(f"{name} {by:+,}" for name, by in off.items()),
        difference=max(abs(every[name] - stated[name]) / stated[name] for name in CLASSES),
    )


@judges("D04")
@counted
def extremes(claim, every, test):
    """No class has more images than happy, none fewer than disgust."""
    most, fewest = max(every, key=every.get), min(every, key=every.get)
    text = f"largest {most} ({every[most]:,}), smallest {fewest} ({every[fewest]:,})"
    stated = claim.stated
    return fact(every[stated["largest"]] == every[most] and every[stated["smallest"]] == every[fewest], text)


@judges("D06")
@counted
def form(claim, every, test):
    """The data could be read, which refuses other sizes than 48x48, and seven classes have images."""
    classes = sum(n > 0 for n in every.values())
    text = f"{IMAGE_SIZE}x{IMAGE_SIZE}, {classes} classes"
    return fact((IMAGE_SIZE, classes) == (claim.stated["size"], claim.stated["classes"]), text)


@judges("D07")
@counted
def test_share(claim, every, test):
    """PublicTest and PrivateTest together are a fifth of all images."""
    share, stated = sum(test.values()) / sum(every.values()), claim.stated["share"]
    text = f"{share:.4f} ({sum(test.values()):,} of {sum(every.values()):,})"
    return fact(abs(share - stated) <= claim.tolerances["share"], text, difference=abs(share - stated) / stated)


@judges("D08")
@counted
def test_images(claim, every, test):
    """The test set has the stated size: Kaggle's test folder, or a random fifth of all images, rounded down.

    The thesis does not say which; the second is a split of its own, which no protocol here covers.
    """
    stated, ours, fifth = (
        claim.stated["test"],
        sum(test.values()),
        math.floor(claim.stated["share"] * sum(every.values())),
    )
    outcome = YES if ours == stated else OPEN if fifth == stated else NO
    why = (
        f"Kaggle's test folder holds {ours:,} images ({ours - stated:+,}); {claim.stated['share']:.0%} of all, rounded "
    )
    why += f"down, is {fifth:,}, which a random split of its own would give and no protocol here covers"
    return Check(outcome, f"{ours:,}", why, difference=abs(ours - stated) / stated)


@judges("D09")
@counted
def enough_per_class(claim, every, test):
    """Every class has at least 140 images in PublicTest and PrivateTest together."""
    stated = claim.stated["per_class"]
    fewest = min(test, key=test.get)
    short = [f"{name} has {n}" for name, n in test.items() if n < stated]
    text = f"fewest: {fewest}, {test[fewest]}"
    return fact(
        not short,
        text,
        f"{', '.join(short)} test images" if short else text,
        difference=max(0, stated - test[fewest]) / stated,
    )


@judges("D12")
@counted
def without_disgust(claim, every, test):
    """The stated total is the number of images of all classes but disgust."""
    ours, stated = sum(every.values()) - every["disgust"], claim.stated["total"]
    text = f"{sum(every.values()):,} - {every['disgust']:,} = {ours:,}"
    return fact(ours == stated, text, difference=abs(ours - stated) / stated)


@judges("D13")
def numbering(e, claim):
    """Table 3.1's numbers are the competition's emotion codes."""
    theirs, ours = claim.stated["table"], claim.stated["codes"]
    off = [
        f"{name} {theirs.index(name)} against {ours.index(name)}"
        for name in theirs
        if theirs.index(name) != ours.index(name)
    ]
    order = "; the table's order is alphabetical, as Keras's flow_from_directory numbers folders"
    text = f"codes: {', '.join(f'{i} {name}' for i, name in enumerate(ours))}"
    return [fact(not off, text, f"{', '.join(off)}{order if theirs == sorted(theirs) else ''}")]
