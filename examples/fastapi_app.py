"""A FastAPI application: a typed path parameter, a typed body.

granian-uring examples.fastapi_app:app
"""

from fastapi import FastAPI
from pydantic import BaseModel

# The pages of /docs and /redoc would load their scripts from elsewhere.
app = FastAPI(title="An example on granian-uring", docs_url=None, redoc_url=None)


class Order(BaseModel):
    """What a client sends to /orders."""

    item: str
    quantity: int = 1


@app.get("/")
async def home() -> dict[str, str]:
    """A line of JSON."""
    return {"message": "Hello, world!"}


@app.get("/items/{number}")
async def item(number: int) -> dict[str, int]:
    """A path parameter that is a number."""
    return {"number": number}


@app.post("/orders")
async def order(order: Order) -> dict[str, str | int]:
    """A body that is checked."""
    return {"item": order.item, "quantity": order.quantity}
