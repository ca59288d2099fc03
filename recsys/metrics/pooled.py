"""Metrics over rows as functions of how often each user is drawn, so that a bootstrap sorts and sums once.

A draw is a count per user [U]. Means of row losses need one sum per user; AUC needs rows sorted once and a
running sum for each draw. Not here: ECE, whose absolute values make a draw look worse than its sample.
"""

from collections.abc import Callable

import numpy as np

from recsys.metrics.columns import IntVector, Rows, Vector, group_sums
from recsys.metrics.list_auc import ListValues, aucs_of_lists, concordances_of_lists
from recsys.metrics.losses import entropy, row_absolute_error, row_log_loss, row_squared_error
from recsys.metrics.metric import Statistic
from recsys.metrics.order import class_weights, order_by_prediction, segment_aucs
from recsys.metrics.true_list_auc import true_aucs_of_lists


def ratio_of_sums(total_U: Vector, weight_U: Vector) -> Statistic:
    """Return the statistic sum(drawn * total) / sum(drawn * weight), NaN when the draw weighs nothing."""

    def statistic(drawn: Vector) -> float:
        weight = float(drawn @ weight_U)
        return float(drawn @ total_U) / weight if weight > 0 else float("nan")

    return statistic


def auc(rows: Rows, user: IntVector) -> Statistic:
    """Sort once; each draw scales the class weights and reads the AUC off the fixed order."""
    order = order_by_prediction(rows.prediction)
    positive, negative = class_weights(rows, order)
    user_sorted = user[order.rows]

    def statistic(drawn: Vector) -> float:
        times = drawn[user_sorted]
        return float(segment_aucs(order, times * positive, times * negative)[0])

    return statistic


def list_auc(rows: Rows, user: IntVector) -> Statistic:
    """Average the lists' AUCs, which no draw changes, over the drawn users' lists with both labels."""
    return _inside_lists(aucs_of_lists(rows), user)


def true_list_auc(rows: Rows, user: IntVector) -> Statistic:
    """Average the lists' expected AUCs over the drawn users' lists, by the chance of both labels."""
    return _inside_lists(true_aucs_of_lists(rows), user)


def list_concordance(rows: Rows, user: IntVector) -> Statistic:
    """Average the lists' concordances, which no draw changes, over the drawn users' lists."""
    return _inside_lists(concordances_of_lists(rows), user)


def log_loss(rows: Rows, user: IntVector) -> Statistic:
    """Average the rows' log losses."""
    return _mean_of(row_log_loss, rows, user)


def squared_error(rows: Rows, user: IntVector) -> Statistic:
    """Average the rows' squared errors: the Brier score of probabilities."""
    return _mean_of(row_squared_error, rows, user)


def absolute_error(rows: Rows, user: IntVector) -> Statistic:
    """Average the rows' absolute errors."""
    return _mean_of(row_absolute_error, rows, user)


def root_squared_error(rows: Rows, user: IntVector) -> Statistic:
    """Take the root of the mean squared error of each draw."""
    mean_squared_error = squared_error(rows, user)
    return lambda drawn: float(np.sqrt(mean_squared_error(drawn)))


def normalised_entropy(rows: Rows, user: IntVector) -> Statistic:
    """Divide each draw's log loss by the entropy of that draw's own mean label."""
    loss, rate = log_loss(rows, user), _mean_of(lambda columns: columns.label, rows, user)

    def statistic(drawn: Vector) -> float:
        floor = entropy(rate(drawn))
        return loss(drawn) / floor if floor > 0 else float("nan")

    return statistic


def _inside_lists(lists: ListValues, user: IntVector) -> Statistic:
    """Average the lists' values by weight, from each user's sums."""
    used, num_users = lists.used, int(user.max()) + 1
    user_G, weight_G = user[lists.a_row[used]], lists.weight[used]
    weight_U, total_U = np.zeros(num_users), np.zeros(num_users)
    np.add.at(weight_U, user_G, weight_G)
    np.add.at(total_U, user_G, lists.value[used] * weight_G)
    return ratio_of_sums(total_U, weight_U)


def _mean_of(row_loss: Callable[[Rows], Vector], rows: Rows, user: IntVector) -> Statistic:
    """Average a loss of rows by weight, from each user's sums."""
    weight_U = group_sums(rows.weight, user)
    return ratio_of_sums(group_sums(rows.weight * row_loss(rows), user), weight_U)
