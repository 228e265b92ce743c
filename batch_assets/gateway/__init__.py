"""Talking to servers of OpenAI's API: calls, how many at a time and how fast, and what their answers are worth."""
