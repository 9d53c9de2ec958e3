"""The values that users see and give: words, arguments, statistics, decisions, batches, errors, clocks."""
