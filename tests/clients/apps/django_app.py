"""Django with the cache backend named by APP_BACKEND; it closes its cache after every request."""

import os

import django
from django.conf import settings
from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from echo import looked_up

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


def view(request):
    return HttpResponse(looked_up(cache, request.META["QUERY_STRING"]))


urlpatterns = [path("", view)]
app = get_wsgi_application()
