"""Tests which URLs of a cluster registry are accepted: those that Ant Media Server's clients can use."""

import re

import pytest

from cluster.settings.database_url import validate_database_url


@pytest.mark.parametrize(
    "url",
    [
        "redis://10.0.0.5:6379",
        "redis://cache.ant-media.test:6379/",
        "redis://:password@10.0.0.5:6379/0",
        "redis://default:pass:w&rd+=@10.0.0.5:6379",
        "rediss://ams:password@master.cache.ant-media.test:6380",
        "mongodb://10.0.0.5",
        "mongodb://ams:p%40ss%2Fword+@10.0.0.5:27017/?retryWrites=false&w=majority",
        "mongodb://ams:password@db1.test:27017,db2.test,db3.test:27019/admin?replicaSet=rs0;tls=true",
        "mongodb://ams@db.test/",
        "mongodb+srv://ams:password@cluster0.ab1cd.mongodb.net/?appName=cluster0",
    ],
)
def test_url_that_ant_media_server_can_use_is_accepted(url: str) -> None:
    assert validate_database_url(url) == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://root:hunter2@db.test/ams", "give a URL with a host"),
        ("redis:10.0.0.5:6379", "give a URL with a host"),
        ("mongodb://", "give a URL with a host"),
        ("/usr/local/antmedia/conf/redis.yaml", "give a URL with a host"),
        ("redis://:hunter2 hunter2@db.test:6379", "percent-encode spaces"),
        ("mongodb://ams:hunter2#@db.test", "percent-encode spaces"),
        ("mongodb://hunter2\u2100@db.test", "percent-encode spaces"),
        ("mongodb://[fd00::5]:27017", "percent-encode spaces"),
        # Redisson
        ("redis://10.0.0.5", "give the port"),
        ("redis://:hunter2@10.0.0.5", "give the port"),
        ("redis://10.0.0.5:", "give a port from 1 to 65535"),
        ("redis://10.0.0.5:66379", "give a port from 1 to 65535"),
        ("redis://:6379", "give a URL with a host name"),
        ("redis://hunter2@10.0.0.5:6379", "give redis://USER:PASSWORD@HOST:PORT"),
        ("redis://user:@10.0.0.5:6379", "give redis://USER:PASSWORD@HOST:PORT"),
        ("redis://user:hunter2@x@10.0.0.5:6379", "give redis://USER:PASSWORD@HOST:PORT"),
        ("redis://:hunter%402@10.0.0.5:6379", "does not decode %"),
        ("redis://10.0.0.5:6379/1", "uses database 0"),
        ("rediss://10.0.0.5:6379?ssl_cert_reqs=none", "ignores a path and options"),
        ("rediss://10.0.0.5:6379/?timeout=5", "ignores a path and options"),
        ("redis://10.0.0.5:6379,10.0.0.6:6379", "uses one Redis server"),
        # MongoDB's Java driver
        ("mongodb://db.test?w=majority", "give a / before the ?"),
        ("mongodb://:hunter2@db.test", "give a user name"),
        ("mongodb://@db.test", "give a user name"),
        ("mongodb://ams:hunter:2@db.test", "percent-encode : and @"),
        ("mongodb://ams:hunter@2@db.test", "percent-encode : and @"),
        ("mongodb://ams:100%@db.test", "write % as %25"),
        ("mongodb://db.test/?tls", "give every option"),
        ("mongodb://db1.test,,db2.test", "give a URL with a host name"),
        ("mongodb://db1.test:0,db2.test", "give a port from 1 to 65535"),
        ("mongodb+srv://ams:hunter2@cluster0.ab1cd.mongodb.net:27017/", "without a port"),
        ("mongodb+srv://a.b.test,c.d.test/", "takes one host name"),
        ("mongodb+srv://ams:hunter2@mongodb.net/", "three or more parts"),
    ],
)
def test_url_that_ant_media_server_cannot_use_is_refused_without_showing_it(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        validate_database_url(url)
    assert "hunter" not in str(refused.value)
