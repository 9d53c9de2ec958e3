"""The addresses of the views."""

from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from shop import views

urlpatterns = [
    path("buy/<int:customer>", csrf_exempt(views.buy)),
    path("subscribe/<int:customer>", csrf_exempt(views.subscribe)),
    path("metrics", views.metrics),
    path("health", views.health),
]
