"""Calls of servers that answer like OpenAI's API: connections, how many at a time, what an answer means.

Plain asyncio. What a call holds and what is made of its answer belongs to whoever calls: the executor `gateway`
(`executors/gateway/`).
"""
