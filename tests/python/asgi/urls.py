"""A Starlette application that tells who asked, and the URLs that it makes of that."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route


async def who(request: Request) -> Response:
    """The client and the URLs."""
    return JSONResponse(
        {
            "client": list(request.client) if request.client else None,
            "url": str(request.url),
            "base_url": str(request.base_url),
            "url_for": str(request.url_for("shop:item", number=7)),
        }
    )


items = Mount("/shop", name="shop", routes=[Route("/{number:int}", who, name="item")])
app = Starlette(routes=[Route("/who", who), items])
