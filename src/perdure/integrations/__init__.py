"""perdure inside of other libraries. Each module needs an extra, and is imported by the user's code alone.

mcp             tasks as tools for a model (`perdure mcp FILE`): the extra `mcp`
openai_agents   agents of the OpenAI Agents SDK as durable code: the extra `openai-agents`
pydantic_ai     agents of pydantic-ai as durable code: the extra `pydantic-ai`
starlette       runs over HTTP, for Starlette and FastAPI: the extra `web`
"""
