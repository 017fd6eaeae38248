"""Jobs side by side, in processes."""

import os
from functools import partial

import pytest
import torch

from hkd_core.common.errors import UserError
from hkd_core.common.parallel import side_by_side


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(getattr(request, "param", 2))
    yield torch.get_num_threads()
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
def test_results_come_in_the_order_of_the_jobs_and_threads_are_shared(threads):
    def job(k):
        return k, torch.get_num_threads(), os.getpid()

    found = side_by_side([partial(job, k) for k in range(4)])
    assert [k for k, *_ in found] == [0, 1, 2, 3]
    assert {count for _, count, _ in found} == {1}
    assert (os.getpid() in {process for *_, process in found}) == (threads == 1)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
def test_random_numbers_do_not_depend_on_what_a_process_did_before(threads):
    def job(k):
        return torch.rand(k + 1)[0].item()

    torch.manual_seed(5)
    found = side_by_side([partial(job, k) for k in range(5)])
    assert set(found) == {torch.rand(1).item()}


def test_what_a_job_raises_is_raised_here(threads):
    def job():
        raise UserError("no such picture")

    with pytest.raises(UserError, match="no such picture"):
        side_by_side([job, job])


def test_a_killed_process_is_reported_in_a_line(threads):
    with pytest.raises(UserError, match="killed, most likely for want of memory"):
        side_by_side([partial(os._exit, 1)] * 2)
