"""How much of a phrase can be understood in a recording: STOI at the best alignment.

STOI (Taal et al., 2011) correlates short-time band envelopes of the clean and the heard speech: 0 is nothing in
common, 1 the same. It asks for aligned signals, so the place of the highest normalised cross-correlation is taken;
a control that does not hold the phrase gets its best place too, which is in its favour.
"""

import numpy
import pystoi
import scipy.signal

RATE = 16_000


def intelligibility(sent, heard, rate):
    """STOI of `sent` in `heard`, and where it begins in `heard`, in seconds."""
    sent, heard = (scipy.signal.resample_poly(x.astype(float), RATE, rate) for x in (sent, heard))
    heard = numpy.pad(heard, (0, max(0, len(sent) - len(heard))))
    likeness = scipy.signal.correlate(heard, sent, mode="valid", method="fft")
    sums = numpy.concatenate([[0.0], numpy.cumsum(heard**2)])
    power = sums[len(sent) :] - sums[: -len(sent)]
    # Windows quieter than -60 dB of the loudest hold nothing to align with.
    floor = max(power.max() * 1e-6, 1e-9)
    lag = int(numpy.argmax(numpy.abs(likeness) / numpy.sqrt(numpy.maximum(power, floor))))
    return float(pystoi.stoi(sent, heard[lag : lag + len(sent)], RATE)), lag / RATE
