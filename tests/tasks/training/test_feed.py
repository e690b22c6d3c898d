import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.training.feed import batches, share_of


@given(count=st.integers(1, 200), batch=st.integers(1, 32), drop_last=st.booleans())
def test_batches_hold_every_sample_once_in_order(count: int, batch: int, drop_last: bool) -> None:
    order = np.random.default_rng(count).permutation(count).astype(np.int32)
    cut = batches(order, batch, drop_last)
    held = cut[cut >= 0]
    full = count // batch * batch
    # A set smaller than one batch is kept whole: an epoch without a step would train nothing.
    expected = order[:full] if drop_last and full else order
    np.testing.assert_array_equal(held, expected)
    assert cut.shape[1] == batch


@given(count=st.integers(1, 100), replicas=st.sampled_from([1, 2, 4, 8]))
def test_replicas_share_every_batch_without_loss_or_repetition(count: int, replicas: int) -> None:
    order = batches(np.arange(count, dtype=np.int32), 16, drop_last=False)
    shares = [share_of(order, replica, replicas) for replica in range(replicas)]
    for step, row in enumerate(order):
        parts = [share[step][share[step] >= 0] for share in shares]
        np.testing.assert_array_equal(np.concatenate(parts), row[row >= 0])
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
