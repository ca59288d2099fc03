def test_smoke(start) -> None:
    one = start()
    answer = one.client.recommend("u1", 5, debug={"explain": True})
    print(answer)
    print(one.admin.status())
    print(one.journal()[:3])
    assert len(answer.items) == 5
