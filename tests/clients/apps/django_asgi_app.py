"""Django under ASGI, with the cache backend named by APP_BACKEND and an asynchronous view.

Django leaves the cache of such a view to the garbage collector, which runs in every request here:
left to itself it does so after some fifty of them.
"""

import gc
import os

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.http import HttpResponse
from django.urls import path

from echo import value_of

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a test",
    CACHES={"default": {
        "BACKEND": "django.core.cache.backends.memcached." + os.environ["APP_BACKEND"],
        "LOCATION": os.environ["APP_SERVER"],
        "OPTIONS": {"default_noreply": False} if "PyMemcache" in os.environ["APP_BACKEND"] else {},
    }},
)
django.setup()


async def view(request):
    gc.collect()
    key = request.META["QUERY_STRING"]
    if await cache.aget(key) is None:
        await cache.aset(key, value_of(key))
    return HttpResponse(await cache.aget(key))


urlpatterns = [path("", view)]
app = get_asgi_application()
