"""Twenty visitors at once (`python -m tests.load` measures the same with the pocket model)."""

import time

import pytest

from tests.load import Page, visit_at_once


@pytest.mark.slow
def test_twenty_at_once_are_served_in_order_and_leave_nothing(demo, page_chat, clips):
    page = Page(demo.local_url)
    alone = page.visit(clips["low"], "What does the person say?")
    visits = visit_at_once(page, [clips["low"]] * 20)
    assert [visit.answer for visit in visits] == [alone.answer] * 20 and alone.answer
    finished = [visit.finished for visit in visits]
    assert finished == sorted(finished), "first come, first served"
    places = [max(visit.places) for visit in visits]
    assert max(places) > 5, f"the places in the queue were shown: {places}"

    for _ in range(100):
        if not page_chat.sessions._sessions and not demo.state_holder.session_data:
            break
        time.sleep(0.1)
    assert not page_chat.sessions._sessions, "key-value caches go with their pages"
    assert not demo.state_holder.session_data, "and so does what Gradio keeps of each page"
    assert demo.page_state.visitors.num_answering() == 0
