"""perdure inside of other libraries. Each module needs an extra, and is imported by the user's code alone.

starlette       runs over HTTP, for Starlette and FastAPI: the extra `web`
"""
