"""Speech to play into a call, and what can be mistaken for it: 48 kHz mono int16 throughout."""

import pathlib
import subprocess
import wave

import numpy
import scipy.signal

RATE = 48_000
# Sentences without a pause, so that no turn detector cuts them in two.
PHRASE = "the birch canoe slid on the smooth planks and the dog ran home"
OTHER_PHRASE = "please bring four large boxes of oranges to my sister tomorrow"


def spoken(text, folder):
    """The text as espeak-ng says it, at a telephone's level."""
    name = "".join(letter for letter in text if letter.isalnum())[:24]
    raw, path = folder / f"{name}-raw.wav", folder / f"{name}.wav"
    subprocess.run(["espeak-ng", "-v", "en-us", "-s", "150", "-w", str(raw), text], check=True, timeout=30)
    # gain: peaks at -6 dBFS; silence: espeak's leading and trailing silence is cut off
    trim = ["silence", "1", "0.01", "0.1%", "reverse", "silence", "1", "0.01", "0.1%", "reverse"]
    effects = ["gain", "-n", "-6", *trim]
    subprocess.run(
        ["sox", str(raw), "-r", str(RATE), "-c", "1", "-b", "16", str(path), *effects], check=True, timeout=30
    )
    raw.unlink()
    return load(path)


def shaped_noise(samples):
    """Noise with the long-term spectrum, the length and the power of this speech, and none of its words."""
    spectrum = numpy.abs(numpy.fft.rfft(samples.astype(float)))
    phases = numpy.random.default_rng(1).uniform(0, 2 * numpy.pi, len(spectrum))
    noise = numpy.fft.irfft(spectrum * numpy.exp(1j * phases), len(samples))
    return noise.clip(-32768, 32767).astype(numpy.int16)


def silence(seconds):
    """Nothing, for so long."""
    return numpy.zeros(int(seconds * RATE), numpy.int16)


def load(path):
    """A mono 16-bit WAV file."""
    with wave.open(str(path), "rb") as file:
        return numpy.frombuffer(file.readframes(file.getnframes()), numpy.int16)


def save(path, samples, rate=RATE):
    """A mono 16-bit WAV file."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype(numpy.int16).tobytes())
    return path


def resampled(samples, rate):
    """48 kHz samples at another rate."""
    return scipy.signal.resample_poly(samples.astype(float), rate, RATE).clip(-32768, 32767).astype(numpy.int16)
