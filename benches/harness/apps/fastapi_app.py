"""A FastAPI application as its documentation begins: a path parameter, and JSON."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/items/{item_id}")
async def read_item(item_id: int, q: str | None = None) -> dict[str, int | str | None]:
    """An item, as it was asked for."""
    return {"item_id": item_id, "q": q}
