"""Keys: create, rotate, revoke; and who a token speaks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from ratchet.core.access import (
    GRANTS,
    Caller,
    Key,
    KeyId,
    Role,
    Scope,
    SigningKeyId,
    caller_of,
    refusal,
)
from ratchet.core.errors import Rejected, Unavailable
from ratchet.core.serving import groups_of
from ratchet.kit.clock import Clock
from ratchet.kit.ids import new_id
from ratchet.ports import AccessStore, Audit, PeopleTokens, ProjectStore, SigningKey, TokenMaker

HINT_CHARACTERS = 6


@dataclass(frozen=True, slots=True)
class AccessParts:
    store: AccessStore
    tokens: TokenMaker
    people: PeopleTokens
    projects: ProjectStore
    audit: Audit
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked of a new key."""

    project: str
    name: str
    principal: str
    scopes: Sequence[Scope]
    models: Sequence[str]
    tier: str
    team: str
    role: Role | None
    lives: timedelta | None


async def create_key(wish: Wish, by: Caller, parts: AccessParts) -> tuple[Key, str]:
    """A new key and its token, which nobody can read again.

    Raises `NotFound` for an unknown project, `Rejected` when the caller would give away more than
    it has.
    """
    await parts.projects.get(wish.project)
    if wish.role is not None and any(
        refusal(by, permission, wish.project) for permission in GRANTS[wish.role]
    ):
        raise Rejected(f"{by.name} cannot give the role {wish.role.value}: it has less itself")
    signing = await _signing_key(parts)
    now = parts.clock.now()
    key = Key(
        id=KeyId(new_id("key")),
        project=wish.project,
        name=wish.name,
        principal=wish.principal,
        scopes=frozenset(wish.scopes),
        models=tuple(wish.models),
        tier=wish.tier,
        team=wish.team,
        role=wish.role,
        signing_key=signing.id,
        created_at=now,
        expires_at=None if wish.lives is None else now + wish.lives,
    )
    token = await _issue(key, signing, by, parts)
    await parts.audit.add(by.name, "create key", key.id, "", key.name, key.principal, now)
    return key, token


async def _issue(key: Key, signing: SigningKey, by: Caller, parts: AccessParts) -> str:
    token = parts.tokens.sign(signing.id, signing.sealed, key.claims())
    await parts.store.add(key, token[-HINT_CHARACTERS:], by.name)
    return token


async def rotate_key(key_id: KeyId, by: Caller, parts: AccessParts) -> tuple[Key, str]:
    """A second key like the first, so that whoever uses it can change over; then revoke the first.

    Raises `NotFound`, and `Rejected` for a key that was revoked.
    """
    old = await parts.store.get(key_id)
    if await parts.store.is_revoked(key_id):
        raise Rejected(f"key {key_id} was revoked: create a new one")
    signing = await _signing_key(parts)
    now = parts.clock.now()
    lives = None if old.expires_at is None else old.expires_at - old.created_at
    key = replace(
        old,
        id=KeyId(new_id("key")),
        signing_key=signing.id,
        created_at=now,
        expires_at=None if lives is None else now + lives,
    )
    token = await _issue(key, signing, by, parts)
    await parts.audit.add(by.name, "rotate key", key_id, key_id, key.id, key.name, now)
    return key, token


async def revoke_key(key_id: KeyId, why: str, by: Caller, parts: AccessParts) -> Key:
    """Refuse a key from now on, at every gateway within a second.  Repeatable.

    Raises `NotFound`.
    """
    key = await parts.store.get(key_id)
    now = parts.clock.now()
    if await parts.store.revoke(key_id, why, now):
        await parts.audit.add(by.name, "revoke key", key_id, "valid", "revoked", why, now)
    return key


async def rotate_signing_key(
    why: str, by: Caller, parts: AccessParts, *, revoke: bool
) -> tuple[SigningKeyId, int]:
    """Sign with a new key pair from now on.

    Keys that the old pair signed stay valid until they end, unless `revoke` says that it can no
    longer be trusted.  Answers the new pair and how many keys were revoked.
    """
    old = await _signing_key(parts)
    new = _new_pair(parts)
    now = parts.clock.now()
    revoked = await parts.store.replace_signing_key(
        old.id, new, now, revoke_because=why if revoke else None
    )
    await parts.audit.add(by.name, "rotate signing key", new.id, old.id, new.id, why, now)
    return new.id, revoked


async def authenticate(token: str, parts: AccessParts) -> Caller:
    """Who a token speaks for.  Raises `Rejected`, in the same words for unknown and revoked."""
    now = parts.clock.now()
    claims = parts.tokens.verify(token, await parts.store.trusted(now), now)
    if await parts.store.is_revoked(KeyId(str(claims["jti"]))):
        raise Rejected("this key is not valid or was revoked")
    return caller_of(claims)


async def authenticate_person(token: str, parts: AccessParts) -> Caller:
    """Who an identity provider's access token speaks for: the highest role of its groups.

    Raises `Rejected`, and `Unavailable` when the provider's keys cannot be had.
    """
    now = parts.clock.now()
    for project in await parts.projects.listing():
        oidc = project.serving.oidc
        if oidc is None:
            continue
        claims = await parts.people.verify(token, oidc, now)
        groups = groups_of(claims.get(oidc.claim))
        roles = [grant.role for group, grant in oidc.grants.items() if group in groups]
        order = list(Role)
        role = max(filter(None, roles), key=order.index, default=None)
        if role is None:
            raise Rejected("no group of this access token has a role here (gateway.oidc.groups)")
        return Caller(name=str(claims["sub"]), role=role, project=project.name)
    raise Rejected("this token is not the one of the state directory, nor a key")


async def prepare(parts: AccessParts) -> None:
    """Have a signing key, so that gateways know whom to trust before the first key is made."""
    await _signing_key(parts)


async def _signing_key(parts: AccessParts) -> SigningKey:
    known = await parts.store.signing_key()
    if known is not None:
        return known
    await parts.store.add_signing_key(_new_pair(parts), parts.clock.now())
    made = await parts.store.signing_key()
    if made is None:
        raise Unavailable("the signing key that was just made is not there")
    return made


def _new_pair(parts: AccessParts) -> SigningKey:
    id_ = SigningKeyId(new_id("sig"))
    public, sealed = parts.tokens.new_signing_key(id_)
    return SigningKey(id_, public, sealed)
