"""A newcomer's first night: files -> the defaults that `recsys convert` writes -> a night and its figures."""
