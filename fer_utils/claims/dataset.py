"""Claims about the dataset, judged by the dataset notebook's counts (chapter 3.1 and the beginning of 5)."""

import math

from fer_utils.claims.checks import NO, OPEN, YES, Check, fact, judges
from fer_utils.constants import CLASSES, IMAGE_SIZE, USAGES


def off_by(ours, stated):
    """Distance of a number as a part of the stated one."""
    return abs(ours - stated) / stated


@judges("D01")
def total(e, c):
    """The number of images is the stated one."""
    ours = sum(e.counts().values())
    wrong = f"{ours:,} images against {c.total:,}: {ours - c.total:+,}"
    return fact(ours == c.total, f"{ours:,}", wrong=wrong, difference=off_by(ours, c.total))


@judges("D02")
def table_3_1(e, c):
    """Each class has as many images as Table 3.1 says."""
    every = e.counts()
    off = [f"{name} {every[name] - n:+,}" for name, n in c.counts.items() if every[name] != n]
    farthest = max(off_by(every[name], n) for name, n in c.counts.items())
    text = ", ".join(f"{name} {n:,}" for name, n in every.items())
    return fact(not off, text, wrong=f"{len(off)} of 7 classes differ: {', '.join(off)}", difference=farthest)


@judges("D04")
def largest_and_smallest(e, c):
    """No class has more images than happy, none fewer than disgust."""
    every = e.counts()
    most, fewest = max(every, key=every.get), min(every, key=every.get)
    text = f"largest {most} ({every[most]:,}), smallest {fewest} ({every[fewest]:,})"
    return fact((every[c.largest], every[c.smallest]) == (every[most], every[fewest]), text)


@judges("D06")
def form(e, c):
    """The data could be read, which refuses other sizes than 48x48, and seven classes have images."""
    classes = sum(n > 0 for n in e.counts().values())
    return fact((IMAGE_SIZE, classes) == (c.size, c.classes), f"{IMAGE_SIZE}x{IMAGE_SIZE}, {classes} classes")


@judges("D07")
def share_of_test_images(e, c):
    """PublicTest and PrivateTest together are a fifth of all images."""
    test, every = (sum(e.counts(usages).values()) for usages in (USAGES[1:], USAGES))
    off = abs(test / every - c.share)
    return fact(off <= c.within["share"], f"{test / every:.4f} ({test:,} of {every:,})", difference=off / c.share)


@judges("D08")
def number_of_test_images(e, c):
    """The test set has the stated size: Kaggle's test folder, or a random fifth of all images, rounded down.

    The thesis does not say which; the second is a split of its own, which no protocol here covers.
    """
    ours, fifth = sum(e.counts(USAGES[1:]).values()), math.floor(c.share * sum(e.counts().values()))
    why = f"Kaggle's test folder holds {ours:,} images ({ours - c.test:+,}); {c.share:.0%} of all, rounded down, is "
    why += f"{fifth:,}, which a random split of its own would give and no protocol here covers"
    outcome = YES if ours == c.test else OPEN if fifth == c.test else NO
    return Check(outcome, f"{ours:,}", why, difference=off_by(ours, c.test))


@judges("D09")
def enough_of_each_class(e, c):
    """Every class has at least 140 images in PublicTest and PrivateTest together."""
    name, fewest = min(e.counts(USAGES[1:]).items(), key=lambda item: item[1])
    wrong = f"{name} has {fewest} test images"
    return fact(fewest >= c.per_class, f"fewest: {name}, {fewest}", wrong=wrong, difference=off_by(fewest, c.per_class))


@judges("D12")
def all_but_disgust(e, c):
    """The stated total is the number of images of all classes but disgust."""
    every = e.counts()
    ours = sum(every.values()) - every["disgust"]
    text = f"{sum(every.values()):,} - {every['disgust']:,} = {ours:,}"
    return fact(ours == c.total, text, difference=off_by(ours, c.total))


@judges("D13")
def numbers_of_the_classes(e, c):
    """Table 3.1's numbers are the competition's emotion codes; they are those of the alphabet."""
    off = [f"{name} {i} against {c.codes.index(name)}" for i, name in enumerate(CLASSES) if c.codes[i] != name]
    wrong = f"{', '.join(off)}; Keras's flow_from_directory numbers folders by the alphabet, as the table does"
    return fact(not off, ", ".join(f"{i} {name}" for i, name in enumerate(c.codes)), wrong=wrong)
