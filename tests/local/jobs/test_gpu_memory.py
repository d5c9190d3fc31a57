"""Out of GPU memory: which batch size is named. The GPU is a function."""

import pytest
import torch

from local.io.errors import CanopyError
from local.jobs.gpu_memory import advise_batch_size, fitting_batch, is_out_of_memory

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def gpu(size, static, item):
    """Function: items -> bytes they take, where `size` bytes are there."""

    def probe(n):
        needed = static + n * item
        if needed > size:
            raise FULL
        return needed

    return probe


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (FULL, True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), False),
        (MemoryError(), False),
    ],
)
def test_what_is_out_of_gpu_memory(error, is_full):
    assert is_out_of_memory(error) == is_full


@pytest.mark.parametrize(
    ("size", "static", "item", "batch", "n"),
    [(1000, 100, 10, 128, 80), (1000, 700, 100, 64, 2), (10_000, 0, 1, 64, 63), (40, 10, 10, 8, 2)],
)
def test_the_size_that_fits_leaves_a_tenth(size, static, item, batch, n):
    found, found_item = fitting_batch(gpu(size, static, item), size, batch)
    assert (found, found_item) == (n, item)
    gpu(size, static, item)(found)


def test_nothing_fits():
    assert fitting_batch(gpu(100, 99, 10), 100, 64)[0] == 0


def raise_full(*_):
    raise FULL


@pytest.mark.parametrize(
    ("probe", "batch", "words"),
    [
        (
            gpu(10**9, 10**8, 10**7),
            128,
            "about 10 MB .* 1,000 MB: set train.batch_size to 80",
        ),
        (raise_full, 64, "not even one or two items"),
        (gpu(100, 1, 1), 1, "not even one or two items"),
    ],
)
def test_the_message_names_the_key_and_a_size(monkeypatch, probe, batch, words):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    available = 10**9
    with (
        pytest.raises(CanopyError, match=rf"fold0: out of GPU memory with .*{batch}; .*{words}"),
        advise_batch_size("fold0", "train.batch_size", batch, probe, lambda: available),
    ):
        raise FULL
    assert emptied == [True]


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shape"), advise_batch_size("x", "y", 2, raise_full):
        raise RuntimeError("shape mismatch")
    with advise_batch_size("x", "y", 2, raise_full):
        pass
