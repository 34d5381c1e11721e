"""perdure inside of other libraries. Each module needs the extra of the same topic, and only its users import it.

starlette       runs over HTTP, for Starlette and FastAPI: the extra `web`
"""
